//! A tensor's `data` in JSON: numbers or texts, flat or nested, told apart by what stands there.

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// Deepest nesting: an image's `[N][height][width][channels]`, and a few more.
const MAX_DEPTH: u8 = 8;

/// What was found, in the order in which it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    Empty,
    /// Whole numbers, 0 to 255.
    Numbers(Vec<u8>),
    /// Texts.
    Texts(Vec<String>),
}

impl<'de> serde::Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut data = Self::Empty;
        deserializer.deserialize_seq(Level { into: &mut data, depth: 0 })?;
        Ok(data)
    }
}

/// A sequence at some depth.
struct Level<'d> {
    into: &'d mut Data,
    depth: u8,
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of whole numbers from 0 to 255, or of texts, flat or nested")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element_seed(Element { into: self.into, depth: self.depth })?.is_some() {}
        Ok(())
    }
}

/// An element: a value, or a sequence one deeper.
struct Element<'d> {
    into: &'d mut Data,
    depth: u8,
}

impl<'de> serde::de::DeserializeSeed<'de> for Element<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Element<'_> {
    fn number<E: Error>(self, value: Option<u8>, as_text: impl fmt::Display) -> Result<(), E> {
        let Some(value) = value else {
            return Err(E::custom(format_args!("{as_text} is not a whole number from 0 to 255")));
        };
        match self.into {
            Data::Numbers(all) => all.push(value),
            Data::Texts(_) => return Err(E::custom("numbers and texts in one tensor")),
            empty => *empty = Data::Numbers(vec![value]),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 to 255, a text, or an array of them")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.number(u8::try_from(value).ok(), value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(u8::try_from(value).ok(), value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        // 7.0 is a whole number; some clients write all numbers so.
        let whole = (0.0..=255.0).contains(&value) && value.fract() == 0.0;
        self.number(whole.then_some(value as u8), value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        match self.into {
            Data::Texts(all) => all.push(value.into()),
            Data::Numbers(_) => return Err(E::custom("numbers and texts in one tensor")),
            empty => *empty = Data::Texts(vec![value.into()]),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<(), A::Error> {
        if self.depth == MAX_DEPTH {
            return Err(A::Error::custom(format_args!("nested more than {MAX_DEPTH} deep")));
        }
        Level { into: self.into, depth: self.depth + 1 }.visit_seq(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Data, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn nesting_does_not_matter_and_order_does() {
        assert_eq!(read("[]"), Ok(Data::Empty));
        assert_eq!(read("[[], []]"), Ok(Data::Empty));
        let four = Ok(Data::Numbers(vec![1, 2, 3, 255]));
        assert_eq!(read("[1, 2, 3, 255]"), four);
        assert_eq!(read("[[1, 2.0], [[3], [255]]]"), four);
        assert_eq!(read(r#"["a", ["b"]]"#), Ok(Data::Texts(vec!["a".into(), "b".into()])));
    }

    #[test]
    fn what_is_no_pixel_is_refused() {
        for wrong in
            ["[256]", "[-1]", "[0.5]", "[1e99]", "[true]", "[null]", "[{}]", r#"[1, "a"]"#, r#"["a", 1]"#, "3"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("[300]").unwrap_err().contains("300 is not a whole number from 0 to 255"));
        assert!(read(&("[".repeat(9) + &"]".repeat(9))).is_ok());
        assert!(read(&("[".repeat(10) + &"]".repeat(10))).unwrap_err().contains("deep"));
    }
}
