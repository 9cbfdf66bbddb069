//! What is asked of ZFS, and of which dataset: of those that were named, of those of a scheduler's
//! jobs, and of the roots of a server's clients.
//!
//! Pure. A dataset that several jobs use is judged once, by all that they ask together. What must
//! never happen here: a job whose other end is on another host and is taken for seen.

use std::collections::{BTreeMap, BTreeSet};

use super::grants::{Asks, Duty};
use crate::cli::config::Job;
use crate::cli::target::{Source, Target};
use crate::dataset::property::PropertyName;
use crate::dataset::{DatasetName, typed};
use crate::error::Failure;
use crate::trust::clients::Clients;
use crate::trust::grants::{Client, Operation};

/// Datasets of this host, and ends of jobs that are on others.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// What each is to be, and what that takes.
    pub here: BTreeMap<(Duty, DatasetName), Asks>,
    /// What is not seen from here.
    pub elsewhere: Vec<Elsewhere>,
}

/// One end of a job, on another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// Source or target.
    pub duty: Duty,
    /// Whose, and how the job calls it.
    pub what: String,
    /// Where and how that is asked.
    pub ask: String,
}

impl Asked {
    /// One more dataset of this host.
    pub fn add(&mut self, duty: Duty, dataset: DatasetName, asks: Asks) {
        self.here.entry((duty, dataset)).or_default().join(asks);
    }

    /// The roots of all clients, by what is granted to each.
    pub fn add_clients(&mut self, clients: &Clients) {
        for grant in clients.iter().flat_map(Client::grants) {
            let asks = Asks {
                prunes: grant.allow.contains(&Operation::Prune),
                properties: grant.properties.clone(),
                ..Asks::default()
            };
            self.add(Duty::Target, grant.root.clone(), asks);
        }
    }

    /// Both ends of a job.
    pub fn add_job(&mut self, job: &Job) -> Result<(), Failure> {
        let copy = &job.copy;
        let (retention, errand) = (copy.retention(), copy.errand());
        let source = Asks {
            prunes: retention.source.is_some(),
            snapshots: copy.takes_one(),
            below: copy.is_tree(),
            properties: BTreeSet::new(),
        };
        let target = Asks {
            prunes: retention.target.is_some(),
            properties: copy.properties().into_iter().collect(),
            ..Asks::default()
        };
        let what = |end: &str| format!("{end} of job {}", job.name);
        match Source::parse(&errand.source)? {
            Source::Local(dataset) => self.add(Duty::Source, dataset, source),
            Source::Ssh { dataset, .. } => {
                let command = command(Duty::Source, dataset.as_str(), &source);
                let ask = format!("as the user of ssh there: {command}");
                let what = what(&errand.source);
                self.elsewhere.push(Elsewhere { duty: Duty::Source, what, ask });
            }
        }
        let there = match Target::parse(&errand.target)? {
            Target::Local(dataset) => {
                self.add(Duty::Target, dataset, target);
                return Ok(());
            }
            Target::Ssh { dataset, .. } => {
                let command = command(Duty::Target, dataset.as_str(), &target);
                format!("as the user of ssh there: {command}")
            }
            Target::Server { .. } => {
                let command = command(Duty::Target, "ROOT", &target);
                let granted = match (target.prunes, target.properties.is_empty()) {
                    (false, true) => "",
                    (true, true) => "; its clients.toml must grant prune as well",
                    (false, false) => "; its clients.toml must grant the properties as well",
                    (true, false) => {
                        "; its clients.toml must grant prune and the properties as well"
                    }
                };
                format!("as the user of zferry serve there: {command}{granted}")
            }
        };
        let what = what(&errand.target);
        self.elsewhere.push(Elsewhere { duty: Duty::Target, what, ask: there });
        Ok(())
    }
}

/// What is typed on the other host.
fn command(duty: Duty, dataset: &str, asks: &Asks) -> String {
    let mut command = format!("zferry doctor --{} {}", duty.topic(), typed(dataset));
    if asks.prunes {
        command.push_str(" --prune");
    }
    let names: Vec<_> = asks.properties.iter().map(PropertyName::as_str).collect();
    if !names.is_empty() {
        command.push_str(" --properties ");
        command.push_str(&typed(&names.join(",")));
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::config::Config;

    fn asked(text: &str) -> Asked {
        let mut asked = Asked::default();
        for job in &Config::parse(text).unwrap().jobs {
            asked.add_job(job).unwrap();
        }
        asked
    }

    #[test]
    fn jobs_of_one_source_are_asked_for_together_and_each_end_for_what_it_does() {
        let asked = asked(
            r#"
            [defaults]
            every = "1h"
            [[job]]
            name = "a"
            source = "tank/a"
            target = "vault/a"
            keep-target = "last=1"
            properties = ["compression", "com.example:owner"]
            no-snapshot = true
            [[job]]
            name = "b"
            source = "tank/a"
            target = "vault/b"
            keep = "last=1"
            recursive = true
            "#,
        );
        let seen: Vec<_> =
            asked.here.iter().map(|((_, name), asks)| (name.as_str(), asks)).collect();
        let [("tank/a", source), ("vault/a", first), ("vault/b", second)] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert!(source.prunes && source.snapshots && source.below, "{source:?}");
        assert!(first.prunes && first.properties.len() == 2, "{first:?}");
        assert_eq!(**second, Asks::default());
        assert_eq!(asked.elsewhere, []);
    }

    #[test]
    fn the_root_of_a_client_is_asked_for_what_was_granted_there() {
        let text = r#"
            [[client]]
            name = "laptop"
            fingerprint = "SHA256:j6Oqsvqpt54KA5jaW1q9B4AUJEKlvoC5pkYI1xjLH80"
            [[client.grant]]
            root = "backup/in"
            allow = ["receive-full", "prune"]
            keep = "daily=3"
            properties = ["compression"]
            "#;
        let mut asked = Asked::default();
        asked.add_clients(&Clients::parse(text).unwrap());
        let [((Duty::Target, root), asks)] = &asked.here.iter().collect::<Vec<_>>()[..] else {
            panic!("{asked:?}")
        };
        assert_eq!((root.as_str(), asks.prunes, asks.properties.len()), ("backup/in", true, 1));
    }

    #[test]
    fn what_is_on_another_host_is_said_to_be_asked_there() {
        let asked = asked(
            r#"
            [[job]]
            name = "served"
            every = "1h"
            source = "tank/a"
            target = "zferry://backup.example/a"
            keep-target = "last=1"
            properties = "compression"
            [[job]]
            name = "fetched"
            every = "1h"
            source = "root@a.example:tank/b c"
            target = "vault/b"
            keep = "last=1"
            "#,
        );
        let [served, fetched] = &asked.elsewhere[..] else { panic!("{asked:?}") };
        assert_eq!(served.what, "zferry://backup.example/a of job served");
        let ask = "as the user of zferry serve there: zferry doctor --target ROOT --prune \
                   --properties compression; its clients.toml must grant prune and the properties \
                   as well";
        assert_eq!((served.duty, served.ask.as_str()), (Duty::Target, ask));
        let ask = "as the user of ssh there: zferry doctor --source 'tank/b c' --prune";
        assert_eq!((fetched.duty, fetched.ask.as_str()), (Duty::Source, ask));
        let names: Vec<_> = asked.here.keys().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["tank/a", "vault/b"]);
    }
}
