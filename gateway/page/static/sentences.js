// What the gateway says, in Chinese: errors by their code, other sentences by their pattern.

/** The code of an error -> what it means. The gateway's own sentence, which has the details, is shown below it. */
export const errors = {
  "api-error": "消息服务器拒绝了请求。",
  "bad-request": "请求有误。",
  "broker-error": "无法使用消息服务器，请稍后重试。",
  "checksum-mismatch": "收到的字节与校验和不符，没有保留。",
  "client-gone": "客户端已断开连接。",
  "collected-elsewhere": "这个作业已由另一个进程完成。",
  "conflict": "请求与现有的内容冲突。",
  "content-too-large": "请求太大。",
  "device-lost": "计算设备出错，需要重新启动。",
  "fleet-full": "机群已满，请稍后再发送。",
  "forbidden": "没有权限。",
  "given-up": "工作进程反复退出，已放弃。",
  "gone": "消息服务器上的队列已被删除，请重新提交。",
  "internal-server-error": "网关内部出错。",
  "item-too-large": "媒体中有一项太大，无法处理。",
  "job-cancelled": "作业已被取消或重新开始。",
  "media-error": "文件不是可读的媒体，或者已损坏。",
  "message-error": "消息格式不正确。",
  "message-too-large": "消息太大，消息服务器无法接收。",
  "method-not-allowed": "这个地址不支持该方法。",
  "model-error": "模型不可用，或者与阶段不符。",
  "model-in-use": "有流水线正在使用这个模型。",
  "model-missing": "缺少需要自行提供的模型。",
  "model-unknown": "机群没有这个模型。",
  "never-fits": "文件太大，机群无法存放。",
  "not-found": "找不到请求的内容。",
  "not-implemented": "不提供这项功能。",
  "option-error": "选项不正确。",
  "other-input": "这个编号属于另一个作业。",
  "output-error": "无法写入结果。",
  "pipeline-error": "流水线不可用。",
  "pipeline-unknown": "机群没有这个流水线。",
  "plugin-missing": "工作进程缺少所需的软件包或设备。",
  "precondition-failed": "协议版本不符。",
  "range-not-satisfiable": "请求的范围不存在。",
  "request-entity-too-large": "请求太大。",
  "request-failed": "工作进程未能完成请求。",
  "request-header-fields-too-large": "请求的头部太长。",
  "request-timeout": "请求来得太慢。",
  "requested-range-not-satisfiable": "请求的范围不存在。",
  "results-evicted": "结果在被收取之前已从消息服务器删除。",
  "service-unavailable": "暂时无法提供服务，请稍后重试。",
  "stage-field-error": "流水线阶段的选项不正确。",
  "store-error": "消息服务器的存储已满或无法读取。",
  "stream-gone": "消息服务器上没有所需的数据流。",
  "taken-over": "另一个发送者正在继续这个上传。",
  "too-many-requests": "请求太频繁，请稍后重试。",
  "unauthorized": "需要有效的密钥。",
  "unexpected": "网关遇到意外错误。",
  "unprocessable-content": "请求的内容有误。",
  "unprocessable-entity": "请求的内容有误。",
  "unsupported-media-type": "不支持这种内容类型。",
  "upload-moved": "上传的字节数与发送者所说的不同。",
  "usage-error": "请求中的名称或选项不正确。",
};

/** Pattern of a sentence, or of a part of one -> the same in Chinese, with the groups in it. The first that fits. */
export const sentences = [
  ["The bottleneck is the stream of results: (.+) of (.+) are kept, so encoders wait until results are collected or too old\\.", "瓶颈是结果流：已存 $1，上限 $2；编码器要等结果被收取或过期。"],
  ["The bottleneck is the store of large bodies: (.+) of (.+) are kept, so publishers of bodies larger than a message wait\\.", "瓶颈是大文件的存储：已存 $1，上限 $2；发送大文件的程序在等待。"],
  ["The bottleneck is (.+): it takes ([\\d.]+%) of the time of (.+) \\((.+) frames/s\\), while (.+) in front of it\\.", "瓶颈是 $1：它占$3 $2 的时间（$4 帧/秒），它前面有$5。"],
  ["The bottleneck is (.+): it takes ([\\d.]+%) of the time of (.+) \\((.+) frames/s\\), while (.+) in front of (.+)\\.", "瓶颈是 $1：它占$3 $2 的时间（$4 帧/秒），$6 前面有$5。"],
  ["The bottleneck is (.+): (.+), and no worker hosts it\\.", "瓶颈是 $1：有$2，而没有工作进程承担它。"],
  ["The bottleneck is (.+): (.+), while (.+)\\.", "瓶颈是 $1：有$2，而$3。"],
  ["The bottleneck is (.+): (.+), and its (.+) spends? ([\\d.]+%) of the time computing\\.", "瓶颈是 $1：有$2，而它的$3只有 $4 的时间在计算。"],
  ["No bottleneck: all queues are empty\\.", "没有瓶颈：所有队列都是空的。"],
  ["No bottleneck: (.+)\\.", "没有瓶颈：$1。"],
  ["([\\d,]+) messages? (?:is|are) in process, and (.+)", "正在处理 $1 条消息，$2"],
  ["(.+); a step of (.+) has run for (\\d+) s", "$1；$2 的一步已运行 $3 秒"],
  ["(.+) (?:is|are) ([\\d.]+%) busy, ([\\d.]+%) of the time with (.+) \\((.+) frames/s\\)", "$1有 $2 的时间忙碌，其中 $3 的时间用于 $4（$5 帧/秒）"],
  ["(.+) (?:is|are) ([\\d.]+%) busy", "$1有 $2 的时间忙碌"],
  ["(\\d+) workers? loads? (?:its|their) models", "$1 个工作进程正在载入模型"],
  ["([\\d,]+) messages? waits? \\((.+), the oldest for (\\d+) s\\)", " $1 条消息在等待（$2，最早的已等 $3 秒）"],
  ["(\\d+) workers?", " $1 个工作进程"],
  ["model (.+) has no tower of texts: search by a picture", "模型 $1 没有文字部分：请用图片搜索"],
  ["(.+): is loading its models", "$1：正在载入模型"],
  ["(?:split: )?(.+) is not media of a format that rigflow reads: .+", "$1 不是可读的媒体：请发送 mp4、mkv 或 webm 影片，wav、mp3 或 flac 声音，jpeg、png、webp、gif、avif、bmp、tiff、ppm、tga 或 jpeg 2000 图片"],
  ["no frame that it looks at could be decoded whole, (\\d+) are damaged: copy it again", "没有一帧能完整解码，$1 帧已损坏：请重新复制文件"],
];

/** A sentence of the gateway in Chinese; null where there is none. */
export function chinese(text) {
  for (const [pattern, made] of sentences) {
    const found = new RegExp(`^${pattern}$`).exec(text);
    if (found) return made.replace(/\$(\d)/g, (_, number) => chinese(found[number]) ?? found[number]);
  }
  return null;
}
