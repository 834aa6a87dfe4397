//! Identifiers. All but [`Resource`] are numbers that the process never uses
//! twice.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        #[cfg(feature = "cli")]
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": "^[0-9]+$" })
            }
        }
    };
}

id! {
    /// tokio's `task::Id`, as `tokio::task::Id` prints it.
    TaskId
}
id! {
    /// One gRPC stream (one call), server or client side, in the order seen.
    StreamId
}
id! {
    /// One transport connection, in the order accepted or opened.
    ConnectionId
}
id! {
    /// One gRPC server, or one channel of a client, in the order made.
    EndpointId
}
id! {
    /// One tokio runtime of the process, in the order registered.
    RuntimeId
}

/// A lock, a channel or whatever else is waited for or held: where it is in
/// memory. In JSON a string, as `{:#x}` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(NonZeroU64);

impl Resource {
    /// What is at an address; nothing is at 0.
    pub fn at(address: u64) -> Option<Self> {
        NonZeroU64::new(address).map(Self)
    }

    /// Its address.
    pub fn address(self) -> u64 {
        self.0.get()
    }

    /// Its digits. There is a resource for nearly every task, and the
    /// formatting machinery costs more than all the rest of telling it.
    fn with_text<R>(self, tell: impl FnOnce(&str) -> R) -> R {
        let number = self.address();
        let digits = (u64::BITS - number.leading_zeros()).div_ceil(4) as usize;
        let mut text = *b"0x0000000000000000";
        for (place, digit) in text[2..2 + digits].iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (4 * place)) as usize & 15];
        }
        tell(std::str::from_utf8(&text[..2 + digits]).unwrap_or_default())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.pad(text))
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Resource {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x");
        digits
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .and_then(Self::at)
            .ok_or("expected an address such as 0x7f10")
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "cli")]
impl schemars::JsonSchema for Resource {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Resource".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^0x[0-9a-f]+$" })
    }
}

#[cfg(test)]
mod tests {
    use super::Resource;

    #[test]
    fn addresses_are_told_as_everywhere() {
        for number in [1, 15, 16, 0x7f10, 0x7fff_1234_5678, u64::MAX] {
            let resource = Resource::at(number).unwrap();
            assert_eq!(resource.to_string(), format!("{number:#x}"));
            assert_eq!(resource.to_string().parse(), Ok(resource));
            let json = serde_json::to_string(&resource).unwrap();
            assert_eq!(json, format!("\"{number:#x}\""));
            assert_eq!(serde_json::from_str::<Resource>(&json).unwrap(), resource);
        }
        assert_eq!(Resource::at(0), None);
        for text in ["", "0x", "0x0", "7f10", "0xg", "0x12345678123456789"] {
            assert!(text.parse::<Resource>().is_err(), "{text}");
        }
    }
}
