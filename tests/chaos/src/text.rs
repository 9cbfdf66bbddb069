//! Plans as text: a line for each rule, so that a run can be printed and repeated. Pure.
//!
//! `WHO[#NUMBER] WAY BYTE FAULT [HOW]`, for example `lane:2#3 up 4096 cut rst`: when 4096 bytes of
//! the third connection of lane 2 have gone up, it is reset. An empty line, and one that begins
//! with `#`, says nothing; `seed N` says what a plan was made from.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::plan::{Ending, Fault, Plan, Rule, Way, Who};

/// A line that is no rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl std::error::Error for PlanError {}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlanError { line, why } = self;
        write!(
            f,
            "line {line} of the plan: {why}; a rule is WHO[#NUMBER] WAY BYTE FAULT [HOW], such as \
             `lane:2#3 up 4096 cut rst`"
        )
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Plan, PlanError> {
        let mut plan = Plan::none();
        for (line, content) in (1..).zip(text.lines()) {
            let words: Vec<_> = content.split_whitespace().collect();
            let read = match words.as_slice() {
                [] => Ok(()),
                [first, ..] if first.starts_with('#') => Ok(()),
                ["seed", seed] => number(seed).map(|seed| plan.seed = Some(seed)),
                words => rule(words).map(|rule| plan.rules.push(rule)),
            };
            read.map_err(|why| PlanError { line, why })?;
        }
        Ok(plan)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seed) = self.seed {
            writeln!(f, "seed {seed}")?;
        }
        self.rules.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rule { who, which, way, at, fault } = self;
        match who {
            Who::Any => f.write_str("any")?,
            Who::Control => f.write_str("control")?,
            Who::Lanes => f.write_str("lanes")?,
            Who::Lane(lane) => write!(f, "lane:{lane}")?,
        }
        if let Some(which) = which {
            write!(f, "#{which}")?;
        }
        let way = match way {
            Way::Up => "up",
            Way::Down => "down",
            Way::Both => "both",
        };
        write!(f, " {way} {at} {fault}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match *self {
            Fault::Cut(Ending::Fin) | Fault::CutAll(Ending::Fin) => f.write_str(" fin"),
            Fault::Cut(Ending::Rst) | Fault::CutAll(Ending::Rst) => f.write_str(" rst"),
            Fault::Hole(None) | Fault::HoleBoth(None) | Fault::HoleAll(None) => Ok(()),
            Fault::Hole(Some(time))
            | Fault::HoleBoth(Some(time))
            | Fault::HoleAll(Some(time))
            | Fault::Refuse(time)
            | Fault::Latency(time)
            | Fault::Delay(time) => write!(f, " {}ms", time.as_millis()),
            Fault::Rate(rate) | Fault::RateAll(rate) => write!(f, " {rate}"),
            Fault::Segments(bytes) | Fault::Repeat(bytes) | Fault::Window(bytes) => {
                write!(f, " {bytes}")
            }
            Fault::Flip(bit) => write!(f, " {bit}"),
        }
    }
}

impl FromStr for Ending {
    type Err = String;

    fn from_str(word: &str) -> Result<Ending, String> {
        match word {
            "fin" => Ok(Ending::Fin),
            "rst" => Ok(Ending::Rst),
            other => Err(format!("`{other}` is not fin or rst")),
        }
    }
}

fn rule(words: &[&str]) -> Result<Rule, String> {
    let &[who, way, at, ref fault @ ..] = words else {
        return Err("too few words".to_owned());
    };
    let (who, which) = match who.split_once('#') {
        None => (who, None),
        Some((who, which)) => (who, Some(number(which)?)),
    };
    if which == Some(0) {
        return Err("connections are counted from 1".to_owned());
    }
    let way = match way {
        "up" => Way::Up,
        "down" => Way::Down,
        "both" => Way::Both,
        other => return Err(format!("`{other}` is not up, down or both")),
    };
    Ok(Rule { who: class(who)?, which, way, at: number(at)?, fault: harm(fault)? })
}

fn class(who: &str) -> Result<Who, String> {
    match who {
        "any" => Ok(Who::Any),
        "control" => Ok(Who::Control),
        "lanes" => Ok(Who::Lanes),
        who => match who.strip_prefix("lane:") {
            Some(lane) => number(lane).map(Who::Lane),
            None => Err(format!("`{who}` is not any, control, lanes or lane:NUMBER")),
        },
    }
}

fn harm(words: &[&str]) -> Result<Fault, String> {
    Ok(match *words {
        ["cut", how] => Fault::Cut(how.parse()?),
        ["cut-all", how] => Fault::CutAll(how.parse()?),
        ["hole"] => Fault::Hole(None),
        ["hole", time] => Fault::Hole(Some(duration(time)?)),
        ["hole-both"] => Fault::HoleBoth(None),
        ["hole-both", time] => Fault::HoleBoth(Some(duration(time)?)),
        ["hole-all"] => Fault::HoleAll(None),
        ["hole-all", time] => Fault::HoleAll(Some(duration(time)?)),
        ["refuse", time] => Fault::Refuse(duration(time)?),
        ["rate", rate] => Fault::Rate(at_least_1(number(rate)?)?),
        ["rate-all", rate] => Fault::RateAll(at_least_1(number(rate)?)?),
        ["latency", time] => Fault::Latency(duration(time)?),
        ["delay", time] => Fault::Delay(duration(time)?),
        ["window", bytes] => Fault::Window(at_least_1(number(bytes)?)?),
        ["segments", bytes] => Fault::Segments(at_least_1(number(bytes)?)?),
        ["flip", bit] => Fault::Flip(number(bit).and_then(|bit| match bit {
            0..8 => Ok(bit),
            _ => Err(format!("a byte has no bit {bit}; they are counted from 0")),
        })?),
        ["repeat", bytes] => Fault::Repeat(at_least_1(number(bytes)?)?),
        _ => return Err(format!("`{}` is no fault", words.join(" "))),
    })
}

fn number<N: FromStr>(word: &str) -> Result<N, String> {
    word.parse().map_err(|_| format!("`{word}` is no number that fits"))
}

fn at_least_1<N: PartialOrd + From<u8>>(count: N) -> Result<N, String> {
    if count < N::from(1) { Err("0 would stop everything".to_owned()) } else { Ok(count) }
}

/// `20s` or `5ms`.
fn duration(word: &str) -> Result<Duration, String> {
    if let Some(millis) = word.strip_suffix("ms") {
        return number(millis).map(Duration::from_millis);
    }
    match word.strip_suffix('s') {
        Some(seconds) => number(seconds).map(Duration::from_secs),
        None => Err(format!("`{word}` is no time such as 20s or 5ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_is_read() {
        let text = "seed 42\n\
                    any both 0 segments 1\n\
                    control#2 down 300 cut rst\n\
                    control up 0 cut-all fin\n\
                    lanes up 5 rate 4096\n\
                    lane:7#3 up 18446744073709551615 hole\n\
                    lane:7 up 1 hole 20ms\n\
                    lane:7 up 1 hole-both 20ms\n\
                    lane:7 up 1 hole-all 20ms\n\
                    any up 2 refuse 3000ms\n\
                    lanes up 0 rate-all 4096\n\
                    any up 3 latency 5ms\n\
                    any both 0 delay 50ms\n\
                    lanes up 0 window 524288\n\
                    any up 3 flip 7\n\
                    any up 3 repeat 48\n";
        let plan: Plan = text.parse().unwrap();
        assert_eq!(plan.to_string(), text);
        assert_eq!((plan.seed, plan.rules.len()), (Some(42), 15));
        let same = "\n  # a comment\nseed 42\n".parse::<Plan>().unwrap();
        assert_eq!(same, Plan { seed: Some(42), rules: Vec::new() });
        assert_eq!(
            "any up 0 refuse 3s".parse::<Plan>().unwrap().to_string(),
            "any up 0 refuse 3000ms\n"
        );
    }

    #[test]
    fn a_line_that_is_no_rule_is_named_with_its_number() {
        for (bad, why) in [
            ("any up", "too few words"),
            ("some up 0 cut rst", "`some` is not any"),
            ("lane:x up 0 cut rst", "`x` is no number"),
            ("lane:65536 up 0 cut rst", "`65536` is no number that fits"),
            ("any#0 up 0 cut rst", "counted from 1"),
            ("any left 0 cut rst", "`left` is not up"),
            ("any up -1 cut rst", "`-1` is no number"),
            ("any up 0", "`` is no fault"),
            ("any up 0 cut", "`cut` is no fault"),
            ("any up 0 cut off", "`off` is not fin"),
            ("any up 0 hole 3", "`3` is no time"),
            ("any up 0 flip 8", "no bit 8"),
            ("any up 0 segments 0", "0 would stop"),
            ("any up 0 window 0", "0 would stop"),
            ("any up 0 delay 5", "`5` is no time"),
            ("seed x", "`x` is no number"),
        ] {
            let error = format!("# fine\n{bad}").parse::<Plan>().unwrap_err();
            assert_eq!(error.line, 2);
            assert!(error.to_string().contains(why), "{bad}: {error}");
        }
    }
}
