//! Arrays of metadata values.

use super::metadata::ValueType;

/// An array of metadata, held as the bytes that the file has for it.
///
/// A vocabulary of 150,000 tokens is one allocation of the size that it has in the file.
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    element_type: ValueType,
    length: usize,
    bytes: Box<[u8]>,
}

/// An element of an [`Array`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Element<'a> {
    /// An integer of any width.
    Integer(i128),
    /// A floating-point number.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string. Not always UTF-8: a token may be part of a character.
    Text(&'a [u8]),
}

impl Array {
    /// The array of these file bytes. Invariant, kept by the reader and the constructors: `bytes` holds
    /// exactly `length` elements, which are no arrays.
    pub(super) fn from_bytes(element_type: ValueType, length: usize, bytes: Vec<u8>) -> Self {
        Self {
            element_type,
            length,
            bytes: bytes.into_boxed_slice(),
        }
    }

    fn from_elements<const N: usize>(
        element_type: ValueType,
        elements: impl Iterator<Item = [u8; N]>,
    ) -> Self {
        let bytes: Vec<u8> = elements.flatten().collect();
        Self::from_bytes(element_type, bytes.len() / N, bytes)
    }

    /// An array of strings.
    pub fn of_strings<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Self {
        let mut bytes = Vec::new();
        let mut length = 0;
        for string in strings {
            let string = string.as_ref();
            bytes.extend_from_slice(&(string.len() as u64).to_le_bytes());
            bytes.extend_from_slice(string);
            length += 1;
        }
        Self::from_bytes(ValueType::String, length, bytes)
    }

    /// An array of `u32`.
    pub fn of_u32(values: impl IntoIterator<Item = u32>) -> Self {
        Self::from_elements(ValueType::U32, values.into_iter().map(u32::to_le_bytes))
    }

    /// An array of `i32`.
    pub fn of_i32(values: impl IntoIterator<Item = i32>) -> Self {
        Self::from_elements(ValueType::I32, values.into_iter().map(i32::to_le_bytes))
    }

    /// An array of `f32`.
    pub fn of_f32(values: impl IntoIterator<Item = f32>) -> Self {
        Self::from_elements(ValueType::F32, values.into_iter().map(f32::to_le_bytes))
    }

    /// An array of booleans.
    pub fn of_bools(values: impl IntoIterator<Item = bool>) -> Self {
        Self::from_elements(ValueType::Bool, values.into_iter().map(|b| [u8::from(b)]))
    }

    /// The type of the elements, never [`ValueType::Array`].
    pub fn element_type(&self) -> ValueType {
        self.element_type
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The elements as they are in the file: little endian, strings after their length in 8 bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements.
    pub fn iter(&self) -> impl Iterator<Item = Element<'_>> {
        let mut rest: &[u8] = &self.bytes;
        (0..self.length).map_while(move |_| next_element(self.element_type, &mut rest))
    }

    /// The elements of an array of strings, as bytes; `None` for other arrays.
    pub fn strings(&self) -> Option<impl Iterator<Item = &[u8]>> {
        (self.element_type == ValueType::String).then(|| {
            self.iter().filter_map(|element| match element {
                Element::Text(text) => Some(text),
                _ => None,
            })
        })
    }

    /// The elements, if all of them are integers that fit.
    pub fn to_u32s(&self) -> Option<Vec<u32>> {
        self.iter()
            .map(|element| match element {
                Element::Integer(value) => value.try_into().ok(),
                _ => None,
            })
            .collect()
    }
}

/// Takes one element from the front of `bytes`.
fn next_element<'a>(element_type: ValueType, bytes: &mut &'a [u8]) -> Option<Element<'a>> {
    fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (first, rest) = bytes.split_first_chunk::<N>()?;
        *bytes = rest;
        Some(*first)
    }
    Some(match element_type {
        ValueType::U8 => Element::Integer(u8::from_le_bytes(take(bytes)?).into()),
        ValueType::I8 => Element::Integer(i8::from_le_bytes(take(bytes)?).into()),
        ValueType::U16 => Element::Integer(u16::from_le_bytes(take(bytes)?).into()),
        ValueType::I16 => Element::Integer(i16::from_le_bytes(take(bytes)?).into()),
        ValueType::U32 => Element::Integer(u32::from_le_bytes(take(bytes)?).into()),
        ValueType::I32 => Element::Integer(i32::from_le_bytes(take(bytes)?).into()),
        ValueType::U64 => Element::Integer(u64::from_le_bytes(take(bytes)?).into()),
        ValueType::I64 => Element::Integer(i64::from_le_bytes(take(bytes)?).into()),
        ValueType::F32 => Element::Float(f32::from_le_bytes(take(bytes)?).into()),
        ValueType::F64 => Element::Float(f64::from_le_bytes(take(bytes)?)),
        ValueType::Bool => Element::Bool(take::<1>(bytes)? != [0]),
        ValueType::String => {
            let length = usize::try_from(u64::from_le_bytes(take(bytes)?)).ok()?;
            let (text, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Element::Text(text)
        }
        ValueType::Array => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_give_back_what_they_were_made_of() {
        assert_eq!(Array::of_u32([7, 8]).to_u32s(), Some(vec![7, 8]));
        assert_eq!(Array::of_i32([7, -8]).to_u32s(), None);
        assert_eq!(Array::of_bools([true]).iter().next(), Some(Element::Bool(true)));
        assert_eq!(Array::of_f32([0.5]).iter().next(), Some(Element::Float(0.5)));
        let words = Array::of_strings(["", "a", "bc"]);
        let read: Vec<&[u8]> = words.strings().unwrap().collect();
        assert_eq!(read, [&b""[..], b"a", b"bc"]);
        assert!(Array::of_u32([1]).strings().is_none());
    }
}
