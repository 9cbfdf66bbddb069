//! `clients.toml`: who may speak to this server, and what is granted to each.
//!
//! What `authorized_keys` is to ssh. Every mistake is told with its line and what would be right,
//! and a list with a mistake counts for nothing: what must never happen here is that a line means
//! less than whoever wrote it believed. `docs/clients.toml` is an example with every key.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use serde_spanned::Spanned;

use super::fingerprint::Fingerprint;
use super::grants::{Client, ClientName, Grant, Limits, Operation, Prefix};
use super::list::{self, ListError, Mistake};
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, Guid};
use crate::error::{Class, Failure, Side};
use crate::retention::{Keep, Rules, Template};
use crate::units::{Bytes, Rate};

/// All who may speak to a server; by default nobody.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    in_order: Vec<Arc<Client>>,
    by_key: HashMap<Fingerprint, Arc<Client>>,
}

impl Clients {
    /// What a file says; nobody, where there is none.
    pub fn load(path: &Path) -> Result<Clients, ListError> {
        Clients::parse(&list::read(path)?)
            .map_err(|mistake| ListError::Wrong { path: path.to_owned(), mistake })
    }

    /// What a text says.
    pub fn parse(text: &str) -> Result<Clients, Mistake> {
        let file: FileText = list::decode(text)?;
        let mut clients = Clients::default();
        let mut names = BTreeSet::new();
        for client in file.client {
            let ClientText { name, fingerprint, grant } = client;
            let wrong = |span, what: String| Err(Mistake::at(text, &span, &what));
            if !names.insert(name.get_ref().as_str().to_ascii_lowercase()) {
                let what = format!("client {} stands here a second time", name.get_ref());
                return wrong(name.span(), what);
            }
            if let Some(other) = clients.find(fingerprint.get_ref()) {
                let what =
                    format!("this is the key of client {}, too: each needs its own", other.name());
                return wrong(fingerprint.span(), what);
            }
            let spans: Vec<_> = grant.iter().map(|grant| grant.get_ref().root.span()).collect();
            let grants = grant.into_iter().map(|grant| grant.into_inner().into()).collect();
            match Client::new(name.into_inner(), fingerprint.into_inner(), grants) {
                Ok(client) => clients.add(client),
                Err(bad) => return wrong(spans[bad.number()].clone(), bad.to_string()),
            }
        }
        Ok(clients)
    }

    fn add(&mut self, client: Client) {
        let client = Arc::new(client);
        self.by_key.insert(client.fingerprint(), Arc::clone(&client));
        self.in_order.push(client);
    }

    /// Whoever has this key, if anybody who is known has it.
    pub fn find(&self, key: &Fingerprint) -> Option<Arc<Client>> {
        self.by_key.get(key).cloned()
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.in_order.iter().map(AsRef::as_ref)
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }
}

/// What to say of a client whose key is in no list.
pub fn unknown(key: &Fingerprint) -> Failure {
    let what = format!("no client with the key {key} is known here");
    Failure::new(Side::Target, Class::Refused, what).with_remedy(format!(
        "if it is one of yours, on the server: zferry keys trust client NAME {key} --root \
         POOL/DATASET"
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    client: Vec<ClientText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientText {
    name: Spanned<ClientName>,
    fingerprint: Spanned<Fingerprint>,
    #[serde(default)]
    grant: Vec<Spanned<GrantText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GrantText {
    prefix: Option<Prefix>,
    root: Spanned<DatasetName>,
    root_guid: Option<Quoted<Guid>>,
    allow: BTreeSet<Operation>,
    #[serde(default)]
    raw_only: bool,
    #[serde(default)]
    properties: BTreeSet<PropertyName>,
    datasets: Option<NonZeroU32>,
    transfers: Option<NonZeroU32>,
    spool: Option<Quoted<Bytes>>,
    bandwidth: Option<Quoted<Rate>>,
    keep: Option<Quoted<Keep>>,
    template: Option<Quoted<Template>>,
}

/// A value that has a form of its own, and stands in quotes.
struct Quoted<T>(T);

/// What such a value looks like.
trait Form: FromStr<Err: fmt::Display> {
    const FORM: &str;
}

impl Form for Guid {
    // TOML's numbers end at half of what a guid may be.
    const FORM: &str = "a guid in quotes, as `zfs get -Hp -o value guid` prints it";
}

impl Form for Keep {
    const FORM: &str = "rules in quotes, as in \"last=7,daily=30\"";
}

impl Form for Template {
    const FORM: &str = "a template in quotes, as in \"zferry_%Y-%m-%dT%H:%M:%SZ\"";
}

impl Form for Bytes {
    const FORM: &str = "a size in quotes, as in \"100GiB\"";
}

impl Form for Rate {
    const FORM: &str = "a rate in quotes, as in \"50MiB\" for 50 MiB in a second";
}

impl<'de, T: Form> Deserialize<'de> for Quoted<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Quoted<T>, D::Error> {
        deserializer.deserialize_str(Reader(PhantomData)).map(Quoted)
    }
}

struct Reader<T>(PhantomData<T>);

impl<T: Form> Visitor<'_> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::FORM)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|error| E::custom(format!("{error}; expected {}", T::FORM)))
    }
}

impl From<GrantText> for Grant {
    fn from(text: GrantText) -> Grant {
        let template = text.template.map(|Quoted(template)| template).unwrap_or_default();
        let keep = text.keep.map(|Quoted(keep)| Rules { keep, template });
        Grant {
            keep,
            prefix: text.prefix,
            root: text.root.into_inner(),
            root_guid: text.root_guid.map(|Quoted(guid)| guid),
            allow: text.allow,
            raw_only: text.raw_only,
            properties: text.properties,
            limits: Limits {
                datasets: text.datasets,
                transfers: text.transfers,
                spool: text.spool.map(|Quoted(bytes)| bytes),
                bandwidth: text.bandwidth.map(|Quoted(rate)| rate),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that people begin with.
    const EXAMPLE: &str = include_str!("../../docs/clients.toml");

    const A: &str = "SHA256:j6Oqsvqpt54KA5jaW1q9B4AUJEKlvoC5pkYI1xjLH80";
    const B: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

    fn client(name: &str, key: &str, grant: &str) -> String {
        let grant = if grant.is_empty() { "" } else { &format!("[[client.grant]]\n{grant}\n") };
        format!("[[client]]\nname = \"{name}\"\nfingerprint = \"{key}\"\n{grant}")
    }

    /// A client with one more line in its grant, which is the sixth of the file.
    fn with(line: &str) -> String {
        client("a", A, &format!("root = \"backup/a\"\n{line}"))
    }

    #[test]
    fn the_example_is_read_and_shows_every_key() {
        let clients = Clients::parse(EXAMPLE).unwrap();
        let names: Vec<&str> = clients.iter().map(|client| client.name().as_str()).collect();
        assert_eq!(names, ["laptop", "db1"]);
        for key in [
            "prefix",
            "root",
            "root-guid",
            "allow",
            "raw-only",
            "properties",
            "datasets",
            "transfers",
            "spool",
            "bandwidth",
            "keep",
            "template",
        ] {
            assert!(EXAMPLE.contains(&format!("\n{key} = ")), "{key}");
        }
        for operation in Operation::ALL {
            assert!(EXAMPLE.contains(operation.word()), "{operation} is not explained");
        }
    }

    #[test]
    fn a_client_is_found_by_its_key_with_all_that_is_granted_to_it() {
        let lines = [
            "root-guid = \"18446744073709551615\"",
            "allow = [\"receive-full\", \"resume\"]",
            "raw-only = true",
            "properties = [\"compression\", \"com.example:owner\"]",
            "datasets = 100",
            "transfers = 2",
            "spool = \"100GiB\"",
            "bandwidth = \"50MiB\"",
            "keep = \"daily=30\"",
        ];
        let clients = Clients::parse(&(with(&lines.join("\n")) + &client("b", B, ""))).unwrap();
        let found = clients.find(&A.parse().unwrap()).unwrap();
        assert_eq!(found.name().as_str(), "a");
        let expected = Grant {
            prefix: None,
            root: "backup/a".parse().unwrap(),
            root_guid: Some(Guid(u64::MAX)),
            allow: [Operation::ReceiveFull, Operation::Resume].into(),
            raw_only: true,
            properties: ["compression", "com.example:owner"]
                .map(|name| name.parse().unwrap())
                .into(),
            keep: Some(Rules { keep: "daily=30".parse().unwrap(), template: Template::default() }),
            limits: Limits {
                datasets: NonZeroU32::new(100),
                transfers: NonZeroU32::new(2),
                spool: Some(Bytes(100 << 30)),
                bandwidth: Some("50MiB".parse().unwrap()),
            },
        };
        assert_eq!(found.grants(), [expected]);
        assert!(clients.find(&B.parse().unwrap()).unwrap().grants().is_empty());
        assert!(clients.find(&Fingerprint::of(b"a stranger")).is_none());
    }

    #[test]
    fn an_empty_or_missing_file_is_nobody() {
        for text in ["", "\n# nobody yet\n"] {
            assert!(Clients::parse(text).unwrap().is_empty());
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(Clients::load(&folder.path().join("clients.toml")).unwrap().is_empty());
    }

    #[test]
    fn every_mistake_has_its_place_and_says_what_is_right() {
        let allow = "allow = []\n";
        let nested = "allow = []\nprefix = \"x\"\n[[client.grant]]\nroot = \"backup/a/b\"\n\
                      allow = []\nprefix = \"y\"";
        for (text, place, words) in [
            ("[[client]".to_owned(), "1:", "expected"),
            ("[client]".to_owned(), "1:1", "expected a sequence"),
            ("[[clients]]".to_owned(), "1:3", "unknown field `clients`, expected `client`"),
            ("[[client]]\nname = \"a\"".to_owned(), "1:1", "missing field `fingerprint`"),
            (client("a b", A, ""), "2:8", "is no name for a client"),
            (client("a", "SHA256:x", ""), "3:15", "is no fingerprint"),
            (client("a", A, "") + &client("A", B, ""), "5:8", "A stands here a second time"),
            (client("a", A, "") + &client("b", A, ""), "6:15", "the key of client a, too"),
            (client("a", A, "root = \"/x\"\nallow = []"), "5:8", "has an empty part"),
            (client("a", A, "root = \"x\""), "4:1", "missing field `allow`"),
            (with("allow = [\"receive\"]"), "6:10", "expected one of `receive-full`, `receive-i"),
            (with("allow = [\"destroy\"]"), "6:10", "'destroy' is not something that a client can"),
            (with(&format!("{allow}alow = []")), "7:1", "unknown field `alow`, expected one of"),
            (with(&format!("{allow}raw-only = 1")), "7:12", "expected a boolean"),
            (with(&format!("{allow}properties = [\"*\"]")), "7:15", "'*' cannot be taken along"),
            (with(&format!("{allow}properties = [\"exec\"]")), "7:15", "these can: aclinherit"),
            (with(&format!("{allow}datasets = 0")), "7:12", "expected a nonzero u32"),
            (with(&format!("{allow}transfers = -1")), "7:13", "expected a nonzero u32"),
            (with(&format!("{allow}spool = 5")), "7:9", "expected a size in quotes"),
            (with(&format!("{allow}spool = \"5 parsec\"")), "7:9", "'parsec' is not a unit"),
            (with(&format!("{allow}bandwidth = \"0\"")), "7:13", "at least 1 byte per second"),
            (with(&format!("{allow}keep = \"x=1\"")), "7:8", "'x' is nothing to keep"),
            (with(&format!("{allow}keep = 7")), "7:8", "expected rules in quotes, as in"),
            (with(&format!("{allow}template = \"%Y\"")), "7:12", "to the second"),
            (with("allow = [\"prune\"]"), "5:8", "without a word of what stays there"),
            (with(&format!("{allow}root-guid = 7")), "7:13", "expected a guid in quotes"),
            (with(&format!("{allow}prefix = \"a/b\"")), "7:10", "has the character '/'"),
            (with(&format!("{allow}allow = []")), "7:1", "duplicate key"),
            (with(nested), "9:8", "root \"backup/a/b\" lies within root \"backup/a\""),
            (with(&nested.replace("prefix = \"y\"", "")), "9:8", "needs a prefix in each"),
            (with(&nested.replace("\"y\"", "\"x\"")), "9:8", "prefix \"x\" is the one of another"),
        ] {
            let mistake = Clients::parse(&text).unwrap_err().to_string();
            assert!(mistake.starts_with(place) && mistake.contains(words), "{mistake}\n{text}");
            assert!(!mistake.contains('\n'), "{mistake}");
        }
    }

    #[test]
    fn a_mistake_in_a_file_is_a_failure_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clients.toml");
        list::replace(&path, "\nclient = 5").unwrap();
        let failure = Clients::load(&path).unwrap_err().on(Side::Target);
        assert_eq!((failure.class, failure.exit_code()), (Class::Usage, 3));
        assert!(failure.what.starts_with(&format!("{}:2:10: ", path.display())), "{failure}");
    }

    #[test]
    fn what_to_type_for_a_stranger_is_said() {
        let failure = unknown(&A.parse().unwrap());
        assert!(failure.remedy.unwrap().contains(&format!("keys trust client NAME {A} --root")));
    }
}
