//! The key-value part of a GGUF file.

use std::fmt;

use super::Fault;
use super::array::Array;

/// The type of a metadata value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
#[allow(missing_docs)] // The names say it.
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [(Self, &'static str); 13] = [
        (Self::U8, "u8"),
        (Self::I8, "i8"),
        (Self::U16, "u16"),
        (Self::I16, "i16"),
        (Self::U32, "u32"),
        (Self::I32, "i32"),
        (Self::F32, "f32"),
        (Self::Bool, "bool"),
        (Self::String, "string"),
        (Self::Array, "array"),
        (Self::U64, "u64"),
        (Self::I64, "i64"),
        (Self::F64, "f64"),
    ];

    /// The type with this number in GGUF files.
    pub fn from_id(id: u32) -> Option<Self> {
        let index = usize::try_from(id).ok()?;
        Self::ALL.get(index).map(|&(value_type, _)| value_type)
    }

    /// The number of the type in GGUF files.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The type's name, such as `u32`.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// How many bytes a value takes; of a string its length field alone.
    pub(super) fn least_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)] // The names say it.
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The value's type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// The value as an integer, whatever its width.
    fn integer(&self) -> Option<i128> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U64(value) => Some(value.into()),
            Self::I64(value) => Some(value.into()),
            _ => None,
        }
    }

    /// What the value is, for an error message: short, whatever the file holds.
    fn describe(&self) -> String {
        match (self, self.integer()) {
            (_, Some(value)) => format!("{value} ({})", self.value_type()),
            (Self::Array(array), _) => format!("an array of {}", array.element_type()),
            _ => format!("of type {}", self.value_type()),
        }
    }
}

macro_rules! from_plain {
    ($($plain:ty => $variant:ident),* $(,)?) => {
        $(impl From<$plain> for Value {
            fn from(value: $plain) -> Self {
                Self::$variant(value)
            }
        })*
    };
}

from_plain! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool, String => String, Array => Array,
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

/// What [`Metadata::get`] can return.
pub trait FromValue<'a>: Sized {
    /// What is needed, for an error message.
    const EXPECTED: &'static str;

    /// The value, if it is what is needed. Integers may be of any width in the file.
    fn from_value(value: &'a Value) -> Option<Self>;
}

macro_rules! from_integer {
    ($($integer:ident $expected:literal),*) => {
        $(impl FromValue<'_> for $integer {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &Value) -> Option<Self> {
                value.integer().and_then(|integer| integer.try_into().ok())
            }
        })*
    };
}

from_integer! {
    u16 "an integer from 0 to 65535",
    u32 "an integer from 0 to 4294967295",
    u64 "an integer that is not negative",
    i32 "an integer from -2147483648 to 2147483647",
    i64 "an integer"
}

impl FromValue<'_> for f32 {
    const EXPECTED: &'static str = "a floating-point number";

    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::F32(value) => Some(value),
            Value::F64(value) => Some(value as f32),
            _ => None,
        }
    }
}

impl FromValue<'_> for bool {
    const EXPECTED: &'static str = "a boolean";

    fn from_value(value: &Value) -> Option<Self> {
        match *value {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a string";

    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a Array {
    const EXPECTED: &'static str = "an array";

    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }
}

/// The metadata of a file, in the order in which the file has it.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    /// The positions in `entries`, sorted by key.
    by_key: Vec<u32>,
}

impl Metadata {
    /// The metadata with these entries.
    ///
    /// # Errors
    ///
    /// [`Fault::DuplicateKey`] where two entries have the same key.
    pub(super) fn new(entries: Vec<(String, Value)>) -> Result<Self, Fault> {
        let by_key = sorted_index(entries.iter().map(|(key, _)| key.as_str()))
            .map_err(|key| Fault::DuplicateKey { key: key.to_owned() })?;
        Ok(Self { entries, by_key })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        find(&self.by_key, key, |index| &self.entries[index].0).map(|index| &self.entries[index].1)
    }

    /// The value of a key as a `u32`, `u64`, `i32`, `f32`, `bool`, `&str` or `&Array`; `None` where the
    /// key is not there.
    ///
    /// # Errors
    ///
    /// [`Fault::WrongType`] where the value is of another type or does not fit.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, Fault> {
        self.value(key)
            .map(|value| {
                T::from_value(value).ok_or_else(|| Fault::WrongType {
                    key: key.to_owned(),
                    found: value.describe(),
                    expected: T::EXPECTED,
                })
            })
            .transpose()
    }

    /// Like [`get`](Self::get), for a key that must be there.
    ///
    /// # Errors
    ///
    /// [`Fault::MissingKey`], and those of [`get`](Self::get).
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, Fault> {
        self.get(key)?
            .ok_or_else(|| Fault::MissingKey { key: key.to_owned() })
    }
}

/// The positions of the names, sorted by name, or a name that is there twice.
///
/// An index of positions, and no map, so that names are held once.
pub(super) fn sorted_index<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<u32>, &'a str> {
    let names: Vec<&str> = names.collect();
    // The reader's limits on counts, and memory for the writer, keep positions within 32 bits.
    let mut index: Vec<u32> = (0..names.len() as u32).collect();
    index.sort_unstable_by_key(|&position| names[position as usize]);
    match index
        .windows(2)
        .find(|pair| names[pair[0] as usize] == names[pair[1] as usize])
    {
        Some(pair) => Err(names[pair[0] as usize]),
        None => Ok(index),
    }
}

/// The position of a name, by an index that [`sorted_index`] made.
pub(super) fn find<'a>(index: &[u32], name: &str, name_at: impl Fn(usize) -> &'a str) -> Option<usize> {
    index
        .binary_search_by(|&position| name_at(position as usize).cmp(name))
        .ok()
        .map(|found| index[found] as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        Metadata::new(vec![
            ("z.text".to_owned(), "hello".into()),
            ("a.width".to_owned(), 64u16.into()),
            ("m.below".to_owned(), (-1i32).into()),
            ("m.list".to_owned(), Array::of_u32([1, 2, 3]).into()),
            ("m.ratio".to_owned(), 0.5f32.into()),
        ])
        .unwrap()
    }

    #[test]
    fn order_is_kept_and_keys_are_found() {
        let metadata = sample();
        let keys: Vec<&str> = metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["z.text", "a.width", "m.below", "m.list", "m.ratio"]);
        for key in keys {
            assert!(metadata.value(key).is_some());
        }
        assert_eq!(metadata.value("m"), None);
    }

    #[test]
    fn integers_are_read_at_any_width_that_fits() {
        let metadata = sample();
        assert_eq!(metadata.get::<u32>("a.width"), Ok(Some(64)));
        assert_eq!(metadata.get::<u64>("a.width"), Ok(Some(64)));
        assert_eq!(metadata.get::<i32>("m.below"), Ok(Some(-1)));
        let fault = metadata.get::<u32>("m.below").unwrap_err();
        assert_eq!(
            fault.to_string(),
            "metadata `m.below` is -1 (i32), and an integer from 0 to 4294967295 is needed"
        );
    }

    #[test]
    fn a_wrong_type_and_a_missing_key_are_told_apart() {
        let metadata = sample();
        assert_eq!(metadata.get::<&str>("none"), Ok(None));
        assert_eq!(
            metadata.require::<&str>("none").unwrap_err().to_string(),
            "metadata `none` is missing"
        );
        assert_eq!(
            metadata.require::<bool>("m.list").unwrap_err().to_string(),
            "metadata `m.list` is an array of u32, and a boolean is needed"
        );
        assert_eq!(
            metadata.require::<&str>("m.ratio").unwrap_err().to_string(),
            "metadata `m.ratio` is of type f32, and a string is needed"
        );
    }

    #[test]
    fn a_key_that_is_there_twice_is_named() {
        let entries = ["a", "b", "a"].map(|key| (key.to_owned(), Value::U8(0)));
        assert_eq!(
            Metadata::new(entries.into()).unwrap_err().to_string(),
            "metadata `a` is there twice"
        );
    }
}
