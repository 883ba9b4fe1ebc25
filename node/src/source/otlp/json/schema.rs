//! Which JSON keys a logs request has, and the protobuf fields that they become.
//!
//! The tables follow OTLP 1.11. A key that is not here is unknown and ignored;
//! that includes the snake_case names, which OTLP/JSON does not accept.

/// An object of the request.
pub(super) struct Message {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field],
    /// An AnyValue: at most one member may be set, and only these nest without end.
    pub(super) is_value: bool,
}

/// One key of an object.
pub(super) struct Field {
    pub(super) key: &'static str,
    pub(super) number: u8,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// What JSON must stand under a key, and how it goes on the wire.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Base64,
    /// An id of so many hexadecimal digits, or an empty one.
    Hex(usize),
    Bool,
    Number(Number),
    Message(&'static Message),
}

/// The numeric types of OTLP. All but `Enum` may also be written as strings.
#[derive(Clone, Copy)]
pub(super) enum Number {
    Int64,
    Int32,
    Uint32,
    Enum,
    Fixed64,
    Fixed32,
    Double,
}

impl Message {
    /// The field of this key; `None` for an unknown key.
    pub(super) fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }
}

impl Field {
    /// The field's tag byte on the wire.
    pub(super) fn tag(&self) -> u8 {
        let wire_type = match self.kind {
            Kind::Text | Kind::Base64 | Kind::Hex(_) | Kind::Message(_) => 2,
            Kind::Number(Number::Fixed32) => 5,
            Kind::Number(Number::Fixed64 | Number::Double) => 1,
            Kind::Bool | Kind::Number(_) => 0,
        };
        self.number << 3 | wire_type
    }
}

const fn one(number: u8, key: &'static str, kind: Kind) -> Field {
    assert!(number < 16, "a tag takes one byte");
    Field { key, number, kind, repeated: false }
}

const fn many(number: u8, key: &'static str, kind: Kind) -> Field {
    assert!(number < 16, "a tag takes one byte");
    Field { key, number, kind, repeated: true }
}

pub(super) static REQUEST: Message = Message {
    name: "ExportLogsServiceRequest",
    fields: &[many(1, "resourceLogs", Kind::Message(&RESOURCE_LOGS))],
    is_value: false,
};

static RESOURCE_LOGS: Message = Message {
    name: "ResourceLogs",
    fields: &[
        one(1, "resource", Kind::Message(&RESOURCE)),
        many(2, "scopeLogs", Kind::Message(&SCOPE_LOGS)),
        one(3, "schemaUrl", Kind::Text),
    ],
    is_value: false,
};

static RESOURCE: Message = Message {
    name: "Resource",
    fields: &[
        many(1, "attributes", Kind::Message(&KEY_VALUE)),
        one(2, "droppedAttributesCount", Kind::Number(Number::Uint32)),
        many(3, "entityRefs", Kind::Message(&ENTITY_REF)),
    ],
    is_value: false,
};

static ENTITY_REF: Message = Message {
    name: "EntityRef",
    fields: &[
        one(1, "schemaUrl", Kind::Text),
        one(2, "type", Kind::Text),
        many(3, "idKeys", Kind::Text),
        many(4, "descriptionKeys", Kind::Text),
    ],
    is_value: false,
};

static SCOPE_LOGS: Message = Message {
    name: "ScopeLogs",
    fields: &[
        one(1, "scope", Kind::Message(&SCOPE)),
        many(2, "logRecords", Kind::Message(&LOG_RECORD)),
        one(3, "schemaUrl", Kind::Text),
    ],
    is_value: false,
};

static SCOPE: Message = Message {
    name: "InstrumentationScope",
    fields: &[
        one(1, "name", Kind::Text),
        one(2, "version", Kind::Text),
        many(3, "attributes", Kind::Message(&KEY_VALUE)),
        one(4, "droppedAttributesCount", Kind::Number(Number::Uint32)),
    ],
    is_value: false,
};

static LOG_RECORD: Message = Message {
    name: "LogRecord",
    fields: &[
        one(1, "timeUnixNano", Kind::Number(Number::Fixed64)),
        one(11, "observedTimeUnixNano", Kind::Number(Number::Fixed64)),
        one(2, "severityNumber", Kind::Number(Number::Enum)),
        one(3, "severityText", Kind::Text),
        one(5, "body", Kind::Message(&ANY_VALUE)),
        many(6, "attributes", Kind::Message(&KEY_VALUE)),
        one(7, "droppedAttributesCount", Kind::Number(Number::Uint32)),
        one(8, "flags", Kind::Number(Number::Fixed32)),
        one(9, "traceId", Kind::Hex(32)),
        one(10, "spanId", Kind::Hex(16)),
        one(12, "eventName", Kind::Text),
    ],
    is_value: false,
};

static KEY_VALUE: Message = Message {
    name: "KeyValue",
    fields: &[
        one(1, "key", Kind::Text),
        one(2, "value", Kind::Message(&ANY_VALUE)),
        one(3, "keyStrindex", Kind::Number(Number::Int32)),
    ],
    is_value: false,
};

static ANY_VALUE: Message = Message {
    name: "AnyValue",
    fields: &[
        one(1, "stringValue", Kind::Text),
        one(2, "boolValue", Kind::Bool),
        one(3, "intValue", Kind::Number(Number::Int64)),
        one(4, "doubleValue", Kind::Number(Number::Double)),
        one(5, "arrayValue", Kind::Message(&ARRAY_VALUE)),
        one(6, "kvlistValue", Kind::Message(&KEY_VALUE_LIST)),
        one(7, "bytesValue", Kind::Base64),
        one(8, "stringValueStrindex", Kind::Number(Number::Int32)),
    ],
    is_value: true,
};

static ARRAY_VALUE: Message = Message {
    name: "ArrayValue",
    fields: &[many(1, "values", Kind::Message(&ANY_VALUE))],
    is_value: false,
};

static KEY_VALUE_LIST: Message = Message {
    name: "KeyValueList",
    fields: &[many(1, "values", Kind::Message(&KEY_VALUE))],
    is_value: false,
};
