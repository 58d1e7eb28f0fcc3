"""Normal numbers that are the same on every machine: counted bits, and a formula of exact operations.

The bits are Philox's, of a key that is made of a seed and a number. They become normal numbers by Wichura's algorithm
AS 241 (Applied Statistics 37, 1988). It needs sums, products, quotients and square roots, which IEEE 754 defines to the
last bit, and a logarithm, which is computed of these here: that of a library differs between processors.
"""

from collections.abc import Sequence
from math import prod, sqrt

import numpy as np

from engines.part import Array

_CENTRAL = (
    (
        3.3871328727963666080,
        133.14166789178437745,
        1971.5909503065514427,
        13731.693765509461125,
        45921.953931549871457,
        67265.770927008700853,
        33430.575583588128105,
        2509.0809287301226727,
    ),
    (
        1.0,
        42.313330701600911252,
        687.18700749205790830,
        5394.1960214247511077,
        21213.794301586595867,
        39307.895800092710610,
        28729.085735721942674,
        5226.4952788528545610,
    ),
)
_MIDDLE = (
    (
        1.42343711074968357734,
        4.63033784615654529590,
        5.76949722146069140550,
        3.64784832476320460504,
        1.27045825245236838258,
        0.241780725177450611770,
        0.0227238449892691845833,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187,
        1.67638483018380384940,
        0.689767334985100004550,
        0.148103976427480074590,
        0.0151986665636164571966,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_TAIL = (
    (
        6.65790464350110377720,
        5.46378491116411436990,
        1.78482653991729133580,
        0.296560571828504891230,
        0.0265321895265761230930,
        0.00124266094738807843860,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        0.599832206555887937690,
        0.136929880922735805310,
        0.0148753612908506148525,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)
_LN2 = 0.693147180559945309417
_TERMS = 19  # of the series of the logarithm: the next one is below 2 ** -53


def normal(seed: int, number: int, shape: Sequence[int]) -> Array:
    """Return `shape` float32 of a normal distribution; a function of the arguments alone. `seed`, `number`: 64 bits."""
    bits = np.random.Philox(key=np.array([seed, number], np.uint64)).random_raw(prod(shape))
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return normal_of(uniform).astype(np.float32).reshape(tuple(shape))


def normal_of(probability: Array) -> Array:
    """Return the numbers that a normal one is below with these probabilities, between 0 and 1: `[N]` float64."""
    away = probability - 0.5
    central = np.abs(away) <= 0.425
    found = np.empty_like(away)
    found[central] = away[central] * _ratio(_CENTRAL, 0.180625 - away[central] * away[central])
    outside = away[~central]
    least = np.where(outside < 0, probability[~central], 1.0 - probability[~central])
    root = np.sqrt(-_log(least))
    size = np.where(root <= 5.0, _ratio(_MIDDLE, root - 1.6), _ratio(_TAIL, root - 5.0))
    found[~central] = np.where(outside < 0, -size, size)
    return found


def _ratio(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    above, below = (_polynomial(each, x) for each in polynomials)
    return above / below


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    value = np.full_like(x, coefficients[-1])
    for each in coefficients[-2::-1]:
        value = value * x + each
    return value


def _log(x: Array) -> Array:
    """Return natural logarithms: of the mantissa by the series of artanh, which converges by 0.03 a term."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < sqrt(0.5)
    mantissa = np.where(small, 2 * mantissa, mantissa)
    part = (mantissa - 1) / (mantissa + 1)
    series = _polynomial(tuple(1.0 / (2 * each + 1) for each in range(_TERMS)), part * part)
    return np.asarray(2 * part * series + (exponent - small) * _LN2)
