//! What goes wrong, and when: drawn from the seed, and given out step by step.

use super::disk::Fate;
use super::environment::End;
use super::random::Random;

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    CutOne,
    CutAll,
    Stall,
    Outage,
    Flip,
    /// The process dies.
    Kill(End),
    /// The host loses its power.
    Power(End),
    /// The receive fails, and any other until there is space again.
    PoolFull,
    /// The next `zfs send` fails somewhere.
    SendFails,
    /// Somebody takes the hold off, and the snapshot away.
    Destroy,
    /// The disk does something else with the next write.
    Disk(End, Fate),
}

/// The faults of a run, each with the step that it comes after; the first one last.
#[derive(Debug)]
pub struct Faults(Vec<(u64, Fault)>);

impl Faults {
    pub fn draw(random: &mut Random) -> Faults {
        let most = random.pick(&[1, 4, 10, 30]);
        let count = random.between(most / 2, most);
        let span = random.pick(&[100, 400, 1500]);
        let kinds = 2 + random.below(13);
        let mut faults: Vec<(u64, Fault)> =
            (0..count).map(|_| (random.below(span), one(random, kinds))).collect();
        faults.sort_by_key(|&(step, _)| std::cmp::Reverse(step));
        Faults(faults)
    }

    /// What goes wrong after this step.
    pub fn after(&mut self, step: u64) -> Option<Fault> {
        self.0.pop_if(|(due, _)| *due <= step).map(|(_, fault)| fault)
    }

    pub fn are_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// The first kinds are the likeliest, and in some runs the only ones.
fn one(random: &mut Random, kinds: u64) -> Fault {
    let end = random.pick(&[End::Client, End::Server]);
    match random.below(kinds) {
        0 | 1 => Fault::CutOne,
        2 => Fault::CutAll,
        3 => Fault::Kill(end),
        4 => Fault::Power(end),
        5 => Fault::Stall,
        6 => Fault::Flip,
        7 => Fault::Outage,
        8 => Fault::PoolFull,
        9 => Fault::SendFails,
        10 | 11 => Fault::Disk(end, random.pick(&[Fate::Failed, Fate::Lost, Fate::Misdirected])),
        _ => Fault::Destroy,
    }
}
