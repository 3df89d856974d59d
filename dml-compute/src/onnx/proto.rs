//! Protocol Buffers, as far as ONNX files need them: messages written field by field, in the order of the calls.
//!
//! See <https://protobuf.dev/programming-guides/encoding/>. Fields that are repeated are written one by one, as `onnx.proto`
//! asks for. Leaves out what no ONNX field of ours has: fixed-width numbers, groups, signed varints.

/// A message in the making.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

/// How a field's value is written: the wire types.
const VARINT: u64 = 0;
const LENGTH: u64 = 2;

impl Message {
    /// A whole number; a negative one is its two's complement.
    pub(super) fn int(mut self, field: u32, value: i64) -> Self {
        self.tag(field, VARINT);
        self.varint(value as u64);
        self
    }

    /// A field of whole numbers.
    pub(super) fn ints(self, field: u32, values: impl IntoIterator<Item = i64>) -> Self {
        values.into_iter().fold(self, |message, value| message.int(field, value))
    }

    /// Bytes, or text in UTF-8.
    pub(super) fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.tag(field, LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message within the message.
    pub(super) fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// As it is stored.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn tag(&mut self, field: u32, wire: u64) {
        self.varint(u64::from(field) << 3 | wire);
    }

    /// Seven bits a byte, the lowest first; all bytes but the last have the eighth bit.
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_encoding_guide() {
        // The examples of the page named above.
        assert_eq!(Message::default().int(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let testing = Message::default().bytes(2, "testing").into_bytes();
        assert_eq!(testing, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
        let inner = Message::default().int(1, 150);
        assert_eq!(Message::default().message(3, &inner).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::default().ints(5, [1, 300]).into_bytes(), [0x28, 1, 0x28, 0xac, 2]);
    }

    #[test]
    fn negative_numbers_take_ten_bytes_and_great_fields_two() {
        let bytes = Message::default().int(20, -1).into_bytes();
        assert_eq!(bytes, [0xa0, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }
}
