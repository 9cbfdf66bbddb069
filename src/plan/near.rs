//! Which names the operator may have meant.
//!
//! Serves the texts of refusals and nothing else: no plan is ever made from a name that is only
//! near.

use crate::dataset::SnapName;
use crate::listing::Snapshot;

/// How many names are offered at most.
const OFFERED_MAX: usize = 3;

/// The names of `snapshots` that a slip of the keyboard could have turned into `wanted`, nearest
/// first, newest first among equally near ones.
pub(super) fn names(wanted: &SnapName, snapshots: &[Snapshot]) -> Vec<SnapName> {
    let slips_max = 1 + wanted.as_str().len() / 4;
    let mut near: Vec<(usize, &SnapName)> = snapshots
        .iter()
        .rev()
        .map(|snapshot| (slips(wanted.as_str(), snapshot.name.as_str()), &snapshot.name))
        .filter(|(slips, _)| *slips <= slips_max)
        .collect();
    near.sort_by_key(|(slips, _)| *slips);
    near.into_iter().take(OFFERED_MAX).map(|(_, name)| name.clone()).collect()
}

/// How many characters must be inserted, dropped or changed to make `right` of `left`, upper and
/// lower case being the same (Levenshtein's distance, one row at a time).
fn slips(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, a) in left.bytes().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, b) in right.bytes().enumerate() {
            let changed = diagonal + usize::from(!a.eq_ignore_ascii_case(&b));
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::slips;

    #[test]
    fn slips_are_counted() {
        for (left, right, count) in [
            ("daily", "daily", 0),
            ("Daily", "daily", 0),
            ("daly", "daily", 1),
            ("kitten", "sitting", 3),
            ("", "abc", 3),
            ("abc", "", 3),
        ] {
            assert_eq!(slips(left, right), count, "{left} {right}");
        }
    }
}
