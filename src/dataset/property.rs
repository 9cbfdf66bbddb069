//! Which properties may travel with a stream, checked once and trusted afterwards.
//!
//! A property can do harm where it lands: `mountpoint` hides a folder of the host, `exec`, `setuid`
//! and `devices` make its files programs, `sharenfs` shows them to others, `keylocation` fetches a
//! key. So both ends go by one list of those that only say how data are kept, and by names that
//! mean nothing to ZFS. What must never happen here: a name that is let in because it is unknown.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::Kind;

/// ZFS's own properties that may travel, and what they are of. None of them mounts, shares, runs or
/// decrypts anything, and none hinders the next stream. Those that a stream fixes itself, such as
/// `volblocksize` and `casesensitivity`, come with it anyway.
const SAFE: [(&str, Of); 18] = [
    ("aclinherit", Of::Filesystems),
    ("aclmode", Of::Filesystems),
    ("acltype", Of::Filesystems),
    ("atime", Of::Filesystems),
    ("checksum", Of::Both),
    ("compression", Of::Both),
    ("copies", Of::Both),
    ("dnodesize", Of::Filesystems),
    ("logbias", Of::Both),
    ("primarycache", Of::Both),
    ("quota", Of::Filesystems),
    ("recordsize", Of::Filesystems),
    ("refquota", Of::Filesystems),
    ("relatime", Of::Filesystems),
    ("secondarycache", Of::Both),
    ("snapdir", Of::Filesystems),
    ("sync", Of::Both),
    ("xattr", Of::Filesystems),
];

/// Of what a property is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Filesystems,
    Both,
}

/// How properties of our own begin: they say what zferry does with a dataset, each on its own host.
const OWN: &str = "zferry:";

/// The longest name that ZFS takes (`MAXNAMELEN` less the NUL).
const NAME_BYTES_MAX: usize = 255;

/// The longest value that may travel. ZFS's own are short; a note of somebody's may be a sentence.
const VALUE_BYTES_MAX: usize = 1024;

/// How many may travel with one stream.
const COUNT_MAX: usize = 32;

/// How long all names and values may be together: they must fit into a message beside all else,
/// where a quotation mark counts twice.
const ALL_BYTES_MAX: usize = 8 << 10;

/// The name of a property that may travel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PropertyName(String);

/// Properties that may travel with a stream of one kind of dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties(BTreeMap<PropertyName, String>);

/// Why a property does not travel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProperty {
    /// It is none of those that may.
    #[error("the property '{}' cannot be taken along; {}", .0.escape_debug(), Expected)]
    Name(String),
    /// It is the business of one host.
    #[error(
        "the property '{}' cannot be taken along: what zferry does with a dataset is said on each \
         host for itself",
        .0.escape_debug()
    )]
    Own(String),
    /// It is no property of this kind of dataset.
    #[error("the property '{name}' cannot be taken along with a {kind}, which has none")]
    Kind {
        /// The property.
        name: PropertyName,
        /// What the dataset is.
        kind: Kind,
    },
    /// It has a value that does harm, or is none.
    #[error("the property '{name}' cannot be taken along: {why}")]
    Value {
        /// The property.
        name: PropertyName,
        /// What is wrong with its value.
        why: &'static str,
    },
    /// They are more than are read.
    #[error(
        "{count} properties of {bytes} bytes cannot be taken along; at most {COUNT_MAX} are, of \
         {ALL_BYTES_MAX} bytes together"
    )]
    Many {
        /// How many they are.
        count: usize,
        /// How long they are.
        bytes: usize,
    },
}

impl PropertyName {
    /// The name as `zfs` wants it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it means nothing to ZFS, and may have any text for a value.
    pub fn is_of_users(&self) -> bool {
        self.0.contains(':')
    }

    fn is_of(&self, kind: Kind) -> bool {
        let of_filesystems = (self.0.as_str(), Of::Filesystems);
        kind == Kind::Filesystem || !SAFE.contains(&of_filesystems)
    }
}

impl FromStr for PropertyName {
    type Err = BadProperty;

    /// Takes one of the list, or what ZFS takes for a property of its users.
    fn from_str(text: &str) -> Result<PropertyName, BadProperty> {
        let name = || PropertyName(text.to_owned());
        if SAFE.iter().any(|(safe, _)| *safe == text) {
            return Ok(name());
        }
        if text.starts_with(OWN) {
            return Err(BadProperty::Own(text.chars().take(NAME_BYTES_MAX).collect()));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ":-._".contains(c);
        // ZFS takes any of these for the first; `-` would be an option to a careless reader.
        let begins_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let is_of_users = text.contains(':') && begins_well && text.chars().all(allowed);
        if is_of_users && text.len() <= NAME_BYTES_MAX {
            return Ok(name());
        }
        Err(BadProperty::Name(text.chars().take(NAME_BYTES_MAX).collect()))
    }
}

impl Properties {
    /// Those of a dataset of this kind, if all of them may travel.
    pub fn checked<'a>(
        all: impl IntoIterator<Item = (&'a str, &'a str)>,
        kind: Kind,
    ) -> Result<Properties, BadProperty> {
        let mut properties = BTreeMap::new();
        let (mut count, mut bytes) = (0_usize, 0_usize);
        for (name, value) in all {
            let name: PropertyName = name.parse()?;
            if !name.is_of(kind) {
                return Err(BadProperty::Kind { name, kind });
            }
            check_value(&name, value)?;
            count += 1;
            bytes = bytes.saturating_add(name.0.len()).saturating_add(value.len());
            properties.insert(name, value.to_owned());
        }
        if count > COUNT_MAX || bytes > ALL_BYTES_MAX {
            return Err(BadProperty::Many { count, bytes });
        }
        Ok(Properties(properties))
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&PropertyName, &str)> {
        self.0.iter().map(|(name, value)| (name, value.as_str()))
    }

    /// As they travel.
    pub fn as_texts(&self) -> BTreeMap<String, String> {
        self.iter().map(|(name, value)| (name.0.clone(), value.to_owned())).collect()
    }
}

fn check_value(name: &PropertyName, value: &str) -> Result<(), BadProperty> {
    let wrong = |why| Err(BadProperty::Value { name: name.clone(), why });
    if value.len() > VALUE_BYTES_MAX {
        return wrong("its value is longer than 1024 bytes");
    }
    if value.chars().any(char::is_control) {
        return wrong("its value has a line break or another control character");
    }
    if name.is_of_users() {
        return Ok(());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if value.is_empty() || !value.chars().all(allowed) {
        return wrong("its value is none that ZFS has for it");
    }
    if name.0 == "checksum" && matches!(value, "off" | "noparity") {
        return wrong("a copy without checksums cannot be proved");
    }
    Ok(())
}

impl BadProperty {
    /// What whoever wanted to take it along can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            BadProperty::Many { .. } => "name fewer in --properties",
            _ => "leave it out of --properties; on the target it can be set by hand: zfs set",
        }
    }
}

/// What may travel.
struct Expected;

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = SAFE.iter().map(|(name, _)| *name).collect();
        write!(
            f,
            "these can: {}, and those of users, which have a colon (com.example:note)",
            names.join(", ")
        )
    }
}

/// By a visitor, so that a mistake is told with the place of the word and not of the list.
impl<'de> Deserialize<'de> for PropertyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PropertyName, D::Error> {
        deserializer.deserialize_str(NameReader)
    }
}

struct NameReader;

impl Visitor<'_> for NameReader {
    type Value = PropertyName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a property")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PropertyName, E> {
        text.parse().map_err(E::custom)
    }
}

impl fmt::Display for PropertyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(all: &[(&str, &str)], kind: Kind) -> Result<Properties, String> {
        Properties::checked(all.iter().copied(), kind).map_err(|bad| bad.to_string())
    }

    #[test]
    fn what_says_how_data_are_kept_may_travel_and_so_may_notes() {
        for name in ["compression", "recordsize", "quota", "com.example:owner", "a:b_c-1.2"] {
            assert_eq!(name.parse::<PropertyName>().unwrap().as_str(), name);
        }
        let travelling = [("compression", "zstd-3"), ("com.example:note", "it's \"mine\" = ä")];
        let properties = checked(&travelling, Kind::Filesystem).unwrap();
        let back = properties.as_texts();
        assert_eq!(back["com.example:note"], "it's \"mine\" = ä");
        assert_eq!(checked(&[], Kind::Volume), Ok(Properties::default()));
    }

    #[test]
    fn what_mounts_shares_runs_or_decrypts_never_travels() {
        for name in [
            "mountpoint",
            "canmount",
            "sharenfs",
            "sharesmb",
            "setuid",
            "devices",
            "exec",
            "readonly",
            "volmode",
            "keylocation",
            "keyformat",
            "encryption",
            "overlay",
            "nbmand",
            "jailed",
            "zoned",
            "reservation",
            "volsize",
            "origin",
            "mlslabel",
            "",
            "Compression",
            "-x:y",
            ":x",
            "com.Example:x",
            "a:b=c",
            "a:b,c",
            "a:\n",
            "zferry:replicate",
            "zferry:",
        ] {
            assert!(name.parse::<PropertyName>().is_err(), "{name:?}");
        }
        assert!(format!("a:{}", "b".repeat(254)).parse::<PropertyName>().is_err());
        let told = "mountpoint".parse::<PropertyName>().unwrap_err();
        assert!(told.to_string().contains("these can: aclinherit, aclmode"), "{told}");
        assert!(told.remedy().contains("--properties"));
    }

    #[test]
    fn a_value_that_is_none_or_does_harm_does_not_travel() {
        let long = "x".repeat(1025);
        for (name, value, words) in [
            ("compression", "", "none that ZFS has"),
            ("compression", "on\toff", "control character"),
            ("com.example:x", "a\nb", "line break"),
            ("com.example:x", "\u{85}", "control character"),
            ("com.example:x", long.as_str(), "longer than"),
            ("checksum", "off", "without checksums"),
            ("checksum", "noparity", "without checksums"),
            ("quota", "1 G", "none that ZFS has"),
        ] {
            let told = checked(&[(name, value)], Kind::Filesystem).unwrap_err();
            assert!(told.contains(words) && told.contains(name), "{told}");
            assert!(!told.contains(['\n', '\t']), "{told}");
        }
    }

    #[test]
    fn a_volume_is_sent_no_property_of_filesystems() {
        assert!(checked(&[("compression", "lz4"), ("a:b", "")], Kind::Volume).is_ok());
        let told = checked(&[("recordsize", "131072")], Kind::Volume).unwrap_err();
        assert!(told.contains("'recordsize' cannot be taken along with a volume"), "{told}");
    }

    #[test]
    fn no_more_travel_than_fit_into_a_message() {
        let names: Vec<String> = (0..33).map(|number| format!("a:{number}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
        assert!(checked(&many[..32], Kind::Volume).is_ok());
        assert!(checked(&many, Kind::Volume).unwrap_err().starts_with("33 properties"));
        let long = "x".repeat(1024);
        let long: Vec<_> = names[..9].iter().map(|name| (name.as_str(), long.as_str())).collect();
        assert!(checked(&long[..7], Kind::Volume).is_ok());
        assert!(checked(&long, Kind::Volume).unwrap_err().contains("9243 bytes"));
    }
}
