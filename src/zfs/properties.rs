//! Reads what is set of a dataset's properties, for a copy that takes them along.
//!
//! Only what somebody has set there, or what came with a stream: a default or what a parent says is
//! the business of the place that a copy lands in. What must never happen here: a value of
//! somebody's that is taken for the value of another property.

use super::{Zfs, ZfsError};
use crate::dataset::DatasetName;
use crate::dataset::property::PropertyName;

impl Zfs {
    /// Those of `names` that are set, each with its value in the form that `zfs set` takes.
    pub fn properties(
        &self,
        dataset: &DatasetName,
        names: &[PropertyName],
    ) -> Result<Vec<(String, String)>, ZfsError> {
        let (users, native): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.is_of_users());
        let mut found = Vec::new();
        if !native.is_empty() {
            let asked = native.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(",");
            let answer = self.ask(&arguments(&asked, dataset))?;
            found.extend(answer.read_lines(|line| {
                let (name, value) = line.split_once('\t')?;
                let was_asked = native.iter().any(|asked| asked.as_str() == name);
                was_asked.then(|| (name.to_owned(), value.to_owned()))
            })?);
        }
        for name in users {
            // A value of a user's may have line ends, and then look like two properties. So each
            // is asked for alone, and all that is said is its value.
            let answer = self.ask(&arguments(name.as_str(), dataset))?;
            if !answer.text.is_empty() {
                let value = answer.read(|text| value_of(name, text))?;
                found.push((name.as_str().to_owned(), value.to_owned()));
            }
        }
        Ok(found)
    }
}

fn arguments<'a>(names: &'a str, dataset: &'a DatasetName) -> [&'a str; 9] {
    let (set, columns) = ("local,received", "property,value");
    ["get", "-Hp", "-s", set, "-o", columns, "--", names, dataset.as_str()]
}

/// Reads `NAME<TAB>VALUE`, and nothing else behind it.
fn value_of<'a>(name: &PropertyName, text: &'a str) -> Option<&'a str> {
    text.strip_prefix(name.as_str())?.strip_prefix('\t')?.strip_suffix('\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_all_that_stands_behind_its_name() {
        let name: PropertyName = "com.example:note".parse().unwrap();
        for (text, expected) in [
            ("com.example:note\tmine\n", Some("mine")),
            ("com.example:note\ta\tb\n", Some("a\tb")),
            // Whoever takes it along refuses line ends.
            ("com.example:note\ta\ncompression\toff\n", Some("a\ncompression\toff")),
            ("com.example:note\t\n", Some("")),
            ("com.example:note2\tx\n", None),
            ("com.example:note\tx", None),
            ("\n", None),
        ] {
            assert_eq!(value_of(&name, text), expected, "{text:?}");
        }
    }
}
