//! Which dataset of a tree is next.
//!
//! Pure. A task may begin when all that it waits for are done; when one of those has failed, it has
//! failed too, for it has no place at the target.

use crate::plan::tree::Task;

/// The tasks of a tree and how far each is. Those that others wait for stand before them.
#[derive(Debug)]
pub(super) struct Queue {
    slots: Vec<Slot>,
    /// All before it have begun.
    begun: usize,
}

#[derive(Debug)]
struct Slot {
    after: Vec<usize>,
    state: State,
}

#[derive(Debug)]
enum State {
    Waits(Box<Task>),
    Runs,
    Done,
    Failed,
}

/// What there is to do.
#[derive(Debug)]
pub(super) enum Next {
    /// This one.
    Task(usize, Box<Task>),
    /// This one cannot be done: one that it waits for has failed.
    Pointless(Box<Task>),
    /// Nothing, before another one has ended.
    Wait,
    /// Nothing any more.
    End,
}

impl Queue {
    /// All of them wait.
    pub fn new(tasks: Vec<Task>) -> Queue {
        let slot =
            |task: Task| Slot { after: task.after.clone(), state: State::Waits(Box::new(task)) };
        Queue { slots: tasks.into_iter().map(slot).collect(), begun: 0 }
    }

    /// What to do next; it has begun then.
    pub fn next(&mut self) -> Next {
        while self.slots.get(self.begun).is_some_and(|it| !matches!(it.state, State::Waits(_))) {
            self.begun += 1;
        }
        if self.begun == self.slots.len() {
            return Next::End;
        }
        for place in self.begun..self.slots.len() {
            if !matches!(self.slots[place].state, State::Waits(_)) {
                continue;
            }
            let mut waited = self.slots[place].after.iter().map(|&it| &self.slots[it].state);
            if waited.clone().any(|it| matches!(it, State::Failed)) {
                return self.take(place, State::Failed).map_or(Next::Wait, Next::Pointless);
            }
            if waited.all(|it| matches!(it, State::Done)) {
                let task = self.take(place, State::Runs);
                return task.map_or(Next::Wait, |task| Next::Task(place, task));
            }
        }
        Next::Wait
    }

    /// A task has ended, well or not.
    pub fn ended(&mut self, place: usize, well: bool) {
        if let Some(slot) = self.slots.get_mut(place) {
            slot.state = if well { State::Done } else { State::Failed };
        }
    }

    fn take(&mut self, place: usize, state: State) -> Option<Box<Task>> {
        match std::mem::replace(&mut self.slots[place].state, state) {
            State::Waits(task) => Some(task),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Kind;
    use crate::listing::{SourceState, TargetState};
    use crate::plan::tree::Verdict;

    fn queue(after: &[&[usize]]) -> Queue {
        let task = |(number, after): (usize, &&[usize])| Task {
            source: SourceState {
                dataset: format!("tank/{number}").parse().unwrap(),
                kind: Kind::Filesystem,
                encrypted: false,
                snapshots: Vec::new(),
                bookmarks: Vec::new(),
                origin: None,
            },
            below: number.to_string(),
            target_name: format!("backup/{number}").parse().unwrap(),
            target: TargetState::Absent,
            verdict: Verdict::Carry(1),
            after: after.to_vec(),
        };
        Queue::new(after.iter().enumerate().map(task).collect())
    }

    fn next(queue: &mut Queue) -> String {
        match queue.next() {
            Next::Task(place, task) => {
                assert_eq!(task.below, place.to_string());
                place.to_string()
            }
            Next::Pointless(task) => format!("{} pointless", task.below),
            Next::Wait => "wait".to_owned(),
            Next::End => "end".to_owned(),
        }
    }

    #[test]
    fn what_waits_for_nothing_goes_first_and_what_waits_when_that_is_done() {
        let mut queue = queue(&[&[], &[0], &[], &[0, 2]]);
        assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], ["0", "2", "wait"]);
        queue.ended(0, true);
        assert_eq!([next(&mut queue), next(&mut queue)], ["1", "wait"]);
        queue.ended(2, true);
        assert_eq!([next(&mut queue), next(&mut queue)], ["3", "end"]);
    }

    #[test]
    fn what_has_no_place_is_not_tried_and_the_rest_is() {
        let mut queue = queue(&[&[], &[0], &[1], &[]]);
        assert_eq!(next(&mut queue), "0");
        queue.ended(0, false);
        let rest = [next(&mut queue), next(&mut queue), next(&mut queue), next(&mut queue)];
        assert_eq!(rest, ["1 pointless", "2 pointless", "3", "end"]);
    }
}
