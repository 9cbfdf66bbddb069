//! The wish that a server prunes a dataset, and what it tells of it.
//!
//! The client says by which rules, the server decides from its own listing and by its own floor.
//! What cannot be done is told in the report and ends nothing: a copy that has gone well is not
//! undone by a server that does not prune.

use serde::{Deserialize, Serialize};

use super::relative::RelativeName;
use super::text::{MESSAGE_BYTES_MAX, one_line};
use crate::dataset::{Guid, NAME_BYTES_MAX};
use crate::error::{Class, Failure, Side};
use crate::retention::{Keep, Report, Rules, Template};

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// Below the server's root for this client.
    pub dataset: RelativeName,
    /// What it wants kept.
    pub keep: Keep,
    /// How the snapshots are called that it means.
    pub template: Template,
    /// The newest snapshot that both sides have.
    pub newest_common: Guid,
    /// Whether it only wants to know.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// How many snapshots are told by name; all are counted.
const NAMES_MAX: usize = 128;

/// How many that stay for now are told with what is in the way.
const STAYS_MAX: usize = 16;

/// The words of one.
const WHY_BYTES_MAX: usize = 500;

/// The words of a failure and its remedy, each.
const FAILURE_BYTES_MAX: usize = 2000;

/// What `serde_json` makes of a byte at most that [`one_line`] has let through: `\"`.
const ESCAPED: usize = 2;

const _: () = assert!(
    NAMES_MAX * (NAME_BYTES_MAX + 3)
        + STAYS_MAX * (NAME_BYTES_MAX + ESCAPED * WHY_BYTES_MAX + 40)
        + 2 * ESCAPED * FAILURE_BYTES_MAX
        + 1024
        <= MESSAGE_BYTES_MAX
);

impl Prune {
    /// The rules that it says.
    pub fn rules(&self) -> Rules {
        Rules { keep: self.keep, template: self.template.clone() }
    }
}

/// A report that fits into a message, and that a person can be shown whoever has written it.
pub(super) fn made_fit(mut report: Report) -> Report {
    report.destroyed.truncate(NAMES_MAX);
    report.stay.truncate(STAYS_MAX);
    for stays in &mut report.stay {
        stays.why = one_line(&stays.why, WHY_BYTES_MAX);
    }
    if let Some(failure) = &mut report.failure {
        failure.what = one_line(&failure.what, FAILURE_BYTES_MAX);
        failure.remedy = failure.remedy.as_ref().map(|remedy| one_line(remedy, FAILURE_BYTES_MAX));
    }
    report
}

/// What whoever has shown no key hears.
pub fn nobody_prunes() -> Failure {
    let what = "a server that lets everybody in prunes for nobody";
    Failure::new(Side::Target, Class::Refused, what).with_remedy(
        "serve by keys, and grant it: zferry keys trust client NAME FINGERPRINT --root \
         POOL/DATASET --allow receive-full,receive-incremental,resume,create-parents,prune --keep \
         RULES; or prune there: zferry prune DATASET --keep RULES",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::SnapName;
    use crate::protocol::envelope::encode;
    use crate::protocol::message::Message;
    use crate::retention::{Stays, Why};

    #[test]
    fn the_longest_report_fits_into_a_message() {
        let name: SnapName = "a".repeat(255).parse().unwrap();
        let words = "\"\u{1b}\n".repeat(10_000);
        let failure = Failure::new(Side::Target, Class::Refused, words.clone());
        let whys = [
            Why::NotOurs,
            Why::Held,
            Why::Cloned,
            Why::NewestCommon,
            Why::Newest,
            Why::Yearly,
            Why::Monthly,
            Why::Weekly,
            Why::Daily,
            Why::Hourly,
            Why::Last,
            Why::NotConfirmed,
            Why::Floor,
            Why::Other,
        ];
        let report = Report {
            count: u64::MAX,
            destroyed: vec![name.clone(); 1000],
            kept: whys.map(|why| (why, u64::MAX)).into(),
            staying: u64::MAX,
            stay: vec![Stays { snapshot: name, why: words.clone() }; 1000],
            failure: Some(failure.with_remedy(words)),
        };
        // `encode` panics where a message does not fit.
        encode(&Message::Pruned(report.clone()));
        let fit = made_fit(report);
        assert_eq!((fit.destroyed.len(), fit.count), (NAMES_MAX, u64::MAX));
        assert!(!fit.stay[0].why.contains(['\n', '\u{1b}']));
    }
}
