// A stand-in for libnvidia-ml.so.1, for machines without a GPU. The folder of FAKE_NVML has one folder a GPU, `0` and
// so on, with a number in each file: limit, least, most, power (mW), temperature, root (0: no right to set limits),
// xid (an event, taken once), lost (1: it does not answer), events (0: none are supported), energy (mJ; absent: none).
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TIMEOUT = 10, LOST = 15, MOST = 16 };
typedef struct { void *device; unsigned long long type, data; unsigned gpu, compute; } Event;
static char devices[MOST];  // a device is the address of its entry

static void path(char *into, unsigned gpu, const char *name) {
    snprintf(into, 512, "%s/%u/%s", getenv("FAKE_NVML"), gpu, name);
}

static long get(unsigned gpu, const char *name, long otherwise) {
    char file[512];
    path(file, gpu, name);
    FILE *in = fopen(file, "r");
    if (!in) return otherwise;
    long value = otherwise;
    if (fscanf(in, "%ld", &value) != 1) value = otherwise;
    fclose(in);
    return value;
}

static unsigned of(void *device) { return (char *)device - devices; }

static int count(void) {
    int gpus = 0;
    while (gpus < MOST && get(gpus, "limit", -1) >= 0) gpus++;
    return gpus;
}

static int answer(void *device, const char *name, unsigned *into) {
    if (get(of(device), "lost", 0)) return LOST;
    long value = get(of(device), name, -1);
    if (value < 0) return NOT_SUPPORTED;
    *into = value;
    return OK;
}

int nvmlInitWithFlags(unsigned flags) { return OK; }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return "an error of the stand-in"; }
int nvmlSystemGetDriverVersion(char *into, unsigned length) { return snprintf(into, length, "535.0") < 0; }
int nvmlDeviceGetCount_v2(unsigned *into) { *into = count(); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **into) {
    *into = devices + index;
    return get(index, "lost", 0) ? LOST : OK;
}
int nvmlDeviceGetUUID(void *device, char *into, unsigned length) {
    return snprintf(into, length, "GPU-00000000-0000-0000-0000-00000000000%u", of(device)) < 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **into) {
    int index = uuid[strlen(uuid) - 1] - '0';
    if (index < 0 || index >= count()) return NOT_FOUND;
    *into = devices + index;
    return OK;
}
int nvmlDeviceGetName(void *device, char *into, unsigned length) { return snprintf(into, length, "P106-100") < 0; }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *into) { return answer(device, "temperature", into); }
int nvmlDeviceGetPowerUsage(void *device, unsigned *into) { return answer(device, "power", into); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *into) { return answer(device, "limit", into); }
int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *into) { return answer(device, "limit", into); }
int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *least, unsigned *most) {
    int code = answer(device, "least", least);
    return code ? code : answer(device, "most", most);
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *into) {
    unsigned value = 0;
    int code = answer(device, "energy", &value);
    *into = value;
    return code;
}
int nvmlDeviceSetPowerManagementLimit(void *device, unsigned limit) {
    if (get(of(device), "lost", 0)) return LOST;
    if (!get(of(device), "root", 1)) return NO_PERMISSION;
    char file[512];
    path(file, of(device), "limit");
    FILE *out = fopen(file, "w");
    if (!out) return NOT_FOUND;
    fprintf(out, "%u", limit);
    fclose(out);
    return OK;
}
int nvmlEventSetCreate(void **into) { *into = devices; return OK; }
int nvmlEventSetFree(void *set) { return OK; }
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
    return get(of(device), "events", 1) ? OK : NOT_SUPPORTED;
}
int nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
    for (unsigned waited = 0; waited <= milliseconds; waited += 10) {
        for (int gpu = 0; gpu < count(); gpu++) {
            long xid = get(gpu, "xid", 0);
            if (!xid) continue;
            char file[512];
            path(file, gpu, "xid");
            remove(file);
            *event = (Event){devices + gpu, 8, xid, 0, 0};
            return OK;
        }
        nanosleep(&(struct timespec){0, 10 * 1000 * 1000}, NULL);
    }
    return TIMEOUT;
}
