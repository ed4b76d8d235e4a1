from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class QoSLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QOS_REALTIME: _ClassVar[QoSLevel]
    QOS_BATCHED: _ClassVar[QoSLevel]
    QOS_BACKGROUND: _ClassVar[QoSLevel]

class PluginType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLUGIN_TYPE_UNSPECIFIED: _ClassVar[PluginType]
    FEATURE_EXTRACTOR: _ClassVar[PluginType]
    MODEL_BACKEND: _ClassVar[PluginType]
    TOOL: _ClassVar[PluginType]
    ACTUATOR: _ClassVar[PluginType]
    EVENT_SOURCE: _ClassVar[PluginType]
    AGENT: _ClassVar[PluginType]

class ActionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_OK: _ClassVar[ActionStatus]
    ACTION_ERROR: _ClassVar[ActionStatus]
    ACTION_TIMEOUT: _ClassVar[ActionStatus]
    ACTION_RETRYABLE: _ClassVar[ActionStatus]
QOS_REALTIME: QoSLevel
QOS_BATCHED: QoSLevel
QOS_BACKGROUND: QoSLevel
PLUGIN_TYPE_UNSPECIFIED: PluginType
FEATURE_EXTRACTOR: PluginType
MODEL_BACKEND: PluginType
TOOL: PluginType
ACTUATOR: PluginType
EVENT_SOURCE: PluginType
AGENT: PluginType
ACTION_OK: ActionStatus
ACTION_ERROR: ActionStatus
ACTION_TIMEOUT: ActionStatus
ACTION_RETRYABLE: ActionStatus

class Event(_message.Message):
    __slots__ = ("id", "type", "timestamp_ms", "source", "metadata", "payload", "confidence", "tags", "priority", "topic", "traceparent", "delivery_attempt")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_MS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    id: str
    type: str
    timestamp_ms: int
    source: str
    metadata: _containers.ScalarMap[str, str]
    payload: bytes
    confidence: float
    tags: _containers.RepeatedScalarFieldContainer[str]
    priority: int
    topic: str
    traceparent: str
    delivery_attempt: int
    def __init__(self, id: _Optional[str] = ..., type: _Optional[str] = ..., timestamp_ms: _Optional[int] = ..., source: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., payload: _Optional[bytes] = ..., confidence: _Optional[float] = ..., tags: _Optional[_Iterable[str]] = ..., priority: _Optional[int] = ..., topic: _Optional[str] = ..., traceparent: _Optional[str] = ..., delivery_attempt: _Optional[int] = ...) -> None: ...

class CapabilityDescriptor(_message.Message):
    __slots__ = ("name", "description", "tool", "effects", "input_schema", "output_schema", "resumable", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    TOOL_FIELD_NUMBER: _ClassVar[int]
    EFFECTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    RESUMABLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    description: str
    tool: bool
    effects: str
    input_schema: str
    output_schema: str
    resumable: bool
    version: str
    def __init__(self, name: _Optional[str] = ..., description: _Optional[str] = ..., tool: _Optional[bool] = ..., effects: _Optional[str] = ..., input_schema: _Optional[str] = ..., output_schema: _Optional[str] = ..., resumable: _Optional[bool] = ..., version: _Optional[str] = ...) -> None: ...

class SubscriptionDescriptor(_message.Message):
    __slots__ = ("topic", "qos", "types", "concurrency")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    QOS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    topic: str
    qos: QoSLevel
    types: _containers.RepeatedScalarFieldContainer[str]
    concurrency: int
    def __init__(self, topic: _Optional[str] = ..., qos: _Optional[_Union[QoSLevel, str]] = ..., types: _Optional[_Iterable[str]] = ..., concurrency: _Optional[int] = ...) -> None: ...

class PluginMeta(_message.Message):
    __slots__ = ("id", "version", "type", "description", "capabilities", "subscriptions")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: str
    type: PluginType
    description: str
    capabilities: _containers.RepeatedCompositeFieldContainer[CapabilityDescriptor]
    subscriptions: _containers.RepeatedCompositeFieldContainer[SubscriptionDescriptor]
    def __init__(self, id: _Optional[str] = ..., version: _Optional[str] = ..., type: _Optional[_Union[PluginType, str]] = ..., description: _Optional[str] = ..., capabilities: _Optional[_Iterable[_Union[CapabilityDescriptor, _Mapping]]] = ..., subscriptions: _Optional[_Iterable[_Union[SubscriptionDescriptor, _Mapping]]] = ...) -> None: ...

class InitRequest(_message.Message):
    __slots__ = ("api_versions", "plugin_id", "config", "grants", "host_socket", "data_dir", "cache_dir", "quotas")
    class QuotasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    API_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    PLUGIN_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    HOST_SOCKET_FIELD_NUMBER: _ClassVar[int]
    DATA_DIR_FIELD_NUMBER: _ClassVar[int]
    CACHE_DIR_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    api_versions: _containers.RepeatedScalarFieldContainer[str]
    plugin_id: str
    config: str
    grants: _containers.RepeatedScalarFieldContainer[str]
    host_socket: str
    data_dir: str
    cache_dir: str
    quotas: _containers.ScalarMap[str, int]
    def __init__(self, api_versions: _Optional[_Iterable[str]] = ..., plugin_id: _Optional[str] = ..., config: _Optional[str] = ..., grants: _Optional[_Iterable[str]] = ..., host_socket: _Optional[str] = ..., data_dir: _Optional[str] = ..., cache_dir: _Optional[str] = ..., quotas: _Optional[_Mapping[str, int]] = ...) -> None: ...

class InitResponse(_message.Message):
    __slots__ = ("api_version", "meta", "error")
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    api_version: str
    meta: PluginMeta
    error: ActionError
    def __init__(self, api_version: _Optional[str] = ..., meta: _Optional[_Union[PluginMeta, _Mapping]] = ..., error: _Optional[_Union[ActionError, _Mapping]] = ...) -> None: ...

class ActionError(_message.Message):
    __slots__ = ("code", "message", "details")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    details: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[str] = ...) -> None: ...

class ActionCall(_message.Message):
    __slots__ = ("id", "capability", "version", "arguments", "payload", "content_type", "remaining_ms", "traceparent", "parent_call_id", "stream", "idempotent_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    REMAINING_MS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    PARENT_CALL_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENT_ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    capability: str
    version: str
    arguments: str
    payload: bytes
    content_type: str
    remaining_ms: int
    traceparent: str
    parent_call_id: str
    stream: bool
    idempotent_id: bool
    def __init__(self, id: _Optional[str] = ..., capability: _Optional[str] = ..., version: _Optional[str] = ..., arguments: _Optional[str] = ..., payload: _Optional[bytes] = ..., content_type: _Optional[str] = ..., remaining_ms: _Optional[int] = ..., traceparent: _Optional[str] = ..., parent_call_id: _Optional[str] = ..., stream: _Optional[bool] = ..., idempotent_id: _Optional[bool] = ...) -> None: ...

class ActionResult(_message.Message):
    __slots__ = ("call_id", "status", "output", "payload", "content_type", "error", "item", "elapsed_us", "provider")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ITEM_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_US_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    status: ActionStatus
    output: str
    payload: bytes
    content_type: str
    error: ActionError
    item: bool
    elapsed_us: int
    provider: str
    def __init__(self, call_id: _Optional[str] = ..., status: _Optional[_Union[ActionStatus, str]] = ..., output: _Optional[str] = ..., payload: _Optional[bytes] = ..., content_type: _Optional[str] = ..., error: _Optional[_Union[ActionError, _Mapping]] = ..., item: _Optional[bool] = ..., elapsed_us: _Optional[int] = ..., provider: _Optional[str] = ...) -> None: ...

class PluginResponse(_message.Message):
    __slots__ = ("status", "error", "elapsed_us")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_US_FIELD_NUMBER: _ClassVar[int]
    status: ActionStatus
    error: ActionError
    elapsed_us: int
    def __init__(self, status: _Optional[_Union[ActionStatus, str]] = ..., error: _Optional[_Union[ActionError, _Mapping]] = ..., elapsed_us: _Optional[int] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HealthStatus(_message.Message):
    __slots__ = ("healthy", "message", "memory_bytes")
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    healthy: bool
    message: str
    memory_bytes: int
    def __init__(self, healthy: _Optional[bool] = ..., message: _Optional[str] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("grace_ms",)
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    grace_ms: int
    def __init__(self, grace_ms: _Optional[int] = ...) -> None: ...

class EventFrame(_message.Message):
    __slots__ = ("seq", "event")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    seq: int
    event: Event
    def __init__(self, seq: _Optional[int] = ..., event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class AckFrame(_message.Message):
    __slots__ = ("seq", "response")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    seq: int
    response: PluginResponse
    def __init__(self, seq: _Optional[int] = ..., response: _Optional[_Union[PluginResponse, _Mapping]] = ...) -> None: ...

class CancelFrame(_message.Message):
    __slots__ = ("call_id", "reason", "seq", "event")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    reason: str
    seq: int
    event: int
    def __init__(self, call_id: _Optional[str] = ..., reason: _Optional[str] = ..., seq: _Optional[int] = ..., event: _Optional[int] = ...) -> None: ...

class ChunkFrame(_message.Message):
    __slots__ = ("call_id", "data", "last", "seq", "event")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    data: bytes
    last: bool
    seq: int
    event: int
    def __init__(self, call_id: _Optional[str] = ..., data: _Optional[bytes] = ..., last: _Optional[bool] = ..., seq: _Optional[int] = ..., event: _Optional[int] = ...) -> None: ...

class CreditFrame(_message.Message):
    __slots__ = ("frames", "call_id", "seq", "event")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    frames: int
    call_id: str
    seq: int
    event: int
    def __init__(self, frames: _Optional[int] = ..., call_id: _Optional[str] = ..., seq: _Optional[int] = ..., event: _Optional[int] = ...) -> None: ...

class HostFrame(_message.Message):
    __slots__ = ("init", "event", "call", "cancel", "reply", "health", "shutdown", "chunk", "credit", "batch")
    INIT_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    SHUTDOWN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    init: InitRequest
    event: EventFrame
    call: ActionCall
    cancel: CancelFrame
    reply: HostReply
    health: HealthRequest
    shutdown: ShutdownRequest
    chunk: ChunkFrame
    credit: CreditFrame
    batch: _containers.RepeatedCompositeFieldContainer[HostFrame]
    def __init__(self, init: _Optional[_Union[InitRequest, _Mapping]] = ..., event: _Optional[_Union[EventFrame, _Mapping]] = ..., call: _Optional[_Union[ActionCall, _Mapping]] = ..., cancel: _Optional[_Union[CancelFrame, _Mapping]] = ..., reply: _Optional[_Union[HostReply, _Mapping]] = ..., health: _Optional[_Union[HealthRequest, _Mapping]] = ..., shutdown: _Optional[_Union[ShutdownRequest, _Mapping]] = ..., chunk: _Optional[_Union[ChunkFrame, _Mapping]] = ..., credit: _Optional[_Union[CreditFrame, _Mapping]] = ..., batch: _Optional[_Iterable[_Union[HostFrame, _Mapping]]] = ...) -> None: ...

class PluginFrame(_message.Message):
    __slots__ = ("init", "ack", "result", "call", "health", "shutdown", "chunk", "credit", "cancel", "batch")
    INIT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    SHUTDOWN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    init: InitResponse
    ack: AckFrame
    result: ActionResult
    call: HostCall
    health: HealthStatus
    shutdown: PluginResponse
    chunk: ChunkFrame
    credit: CreditFrame
    cancel: CancelFrame
    batch: _containers.RepeatedCompositeFieldContainer[PluginFrame]
    def __init__(self, init: _Optional[_Union[InitResponse, _Mapping]] = ..., ack: _Optional[_Union[AckFrame, _Mapping]] = ..., result: _Optional[_Union[ActionResult, _Mapping]] = ..., call: _Optional[_Union[HostCall, _Mapping]] = ..., health: _Optional[_Union[HealthStatus, _Mapping]] = ..., shutdown: _Optional[_Union[PluginResponse, _Mapping]] = ..., chunk: _Optional[_Union[ChunkFrame, _Mapping]] = ..., credit: _Optional[_Union[CreditFrame, _Mapping]] = ..., cancel: _Optional[_Union[CancelFrame, _Mapping]] = ..., batch: _Optional[_Iterable[_Union[PluginFrame, _Mapping]]] = ...) -> None: ...

class HostCall(_message.Message):
    __slots__ = ("seq", "publish", "invoke", "emit", "kv_get", "kv_put", "kv_delete", "kv_list", "http_request", "log", "get_secret", "span")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    INVOKE_FIELD_NUMBER: _ClassVar[int]
    EMIT_FIELD_NUMBER: _ClassVar[int]
    KV_GET_FIELD_NUMBER: _ClassVar[int]
    KV_PUT_FIELD_NUMBER: _ClassVar[int]
    KV_DELETE_FIELD_NUMBER: _ClassVar[int]
    KV_LIST_FIELD_NUMBER: _ClassVar[int]
    HTTP_REQUEST_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    GET_SECRET_FIELD_NUMBER: _ClassVar[int]
    SPAN_FIELD_NUMBER: _ClassVar[int]
    seq: int
    publish: PublishRequest
    invoke: ActionCall
    emit: EmitRequest
    kv_get: KvRequest
    kv_put: KvRequest
    kv_delete: KvRequest
    kv_list: KvRequest
    http_request: HttpCall
    log: LogRecord
    get_secret: SecretRequest
    span: SpanRecord
    def __init__(self, seq: _Optional[int] = ..., publish: _Optional[_Union[PublishRequest, _Mapping]] = ..., invoke: _Optional[_Union[ActionCall, _Mapping]] = ..., emit: _Optional[_Union[EmitRequest, _Mapping]] = ..., kv_get: _Optional[_Union[KvRequest, _Mapping]] = ..., kv_put: _Optional[_Union[KvRequest, _Mapping]] = ..., kv_delete: _Optional[_Union[KvRequest, _Mapping]] = ..., kv_list: _Optional[_Union[KvRequest, _Mapping]] = ..., http_request: _Optional[_Union[HttpCall, _Mapping]] = ..., log: _Optional[_Union[LogRecord, _Mapping]] = ..., get_secret: _Optional[_Union[SecretRequest, _Mapping]] = ..., span: _Optional[_Union[SpanRecord, _Mapping]] = ...) -> None: ...

class HostReply(_message.Message):
    __slots__ = ("seq", "error", "publish", "invoke", "empty", "kv", "http", "secret")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    INVOKE_FIELD_NUMBER: _ClassVar[int]
    EMPTY_FIELD_NUMBER: _ClassVar[int]
    KV_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    seq: int
    error: ActionError
    publish: PublishReply
    invoke: ActionResult
    empty: Empty
    kv: KvReply
    http: HttpReply
    secret: SecretReply
    def __init__(self, seq: _Optional[int] = ..., error: _Optional[_Union[ActionError, _Mapping]] = ..., publish: _Optional[_Union[PublishReply, _Mapping]] = ..., invoke: _Optional[_Union[ActionResult, _Mapping]] = ..., empty: _Optional[_Union[Empty, _Mapping]] = ..., kv: _Optional[_Union[KvReply, _Mapping]] = ..., http: _Optional[_Union[HttpReply, _Mapping]] = ..., secret: _Optional[_Union[SecretReply, _Mapping]] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("event", "call_id")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    event: Event
    call_id: str
    def __init__(self, event: _Optional[_Union[Event, _Mapping]] = ..., call_id: _Optional[str] = ...) -> None: ...

class PublishReply(_message.Message):
    __slots__ = ("delivered",)
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    delivered: int
    def __init__(self, delivered: _Optional[int] = ...) -> None: ...

class EmitRequest(_message.Message):
    __slots__ = ("call_id", "output", "payload", "content_type", "elapsed_us")
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_US_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    output: str
    payload: bytes
    content_type: str
    elapsed_us: int
    def __init__(self, call_id: _Optional[str] = ..., output: _Optional[str] = ..., payload: _Optional[bytes] = ..., content_type: _Optional[str] = ..., elapsed_us: _Optional[int] = ...) -> None: ...

class KvRequest(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...

class KvReply(_message.Message):
    __slots__ = ("found", "value", "keys")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    found: bool
    value: bytes
    keys: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, found: _Optional[bool] = ..., value: _Optional[bytes] = ..., keys: _Optional[_Iterable[str]] = ...) -> None: ...

class HttpHeader(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class HttpCall(_message.Message):
    __slots__ = ("method", "url", "headers", "body", "timeout_ms", "call_id")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    method: str
    url: str
    headers: _containers.RepeatedCompositeFieldContainer[HttpHeader]
    body: bytes
    timeout_ms: int
    call_id: str
    def __init__(self, method: _Optional[str] = ..., url: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[HttpHeader, _Mapping]]] = ..., body: _Optional[bytes] = ..., timeout_ms: _Optional[int] = ..., call_id: _Optional[str] = ...) -> None: ...

class HttpReply(_message.Message):
    __slots__ = ("status", "headers", "body")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    status: int
    headers: _containers.RepeatedCompositeFieldContainer[HttpHeader]
    body: bytes
    def __init__(self, status: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[HttpHeader, _Mapping]]] = ..., body: _Optional[bytes] = ...) -> None: ...

class LogRecord(_message.Message):
    __slots__ = ("level", "message", "call_id", "attributes")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    level: str
    message: str
    call_id: str
    attributes: _containers.ScalarMap[str, str]
    def __init__(self, level: _Optional[str] = ..., message: _Optional[str] = ..., call_id: _Optional[str] = ..., attributes: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SpanRecord(_message.Message):
    __slots__ = ("call_id", "name", "start_offset_us", "duration_us", "attributes", "error")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CALL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_OFFSET_US_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    call_id: str
    name: str
    start_offset_us: int
    duration_us: int
    attributes: _containers.ScalarMap[str, str]
    error: str
    def __init__(self, call_id: _Optional[str] = ..., name: _Optional[str] = ..., start_offset_us: _Optional[int] = ..., duration_us: _Optional[int] = ..., attributes: _Optional[_Mapping[str, str]] = ..., error: _Optional[str] = ...) -> None: ...

class SecretRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class SecretReply(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: str
    def __init__(self, value: _Optional[str] = ...) -> None: ...
