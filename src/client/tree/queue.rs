//! Which dataset of a tree is next.
//!
//! Pure. A task may begin when all that it waits for are done; when one of those has failed, it has
//! failed too, for it has no place at the target. A dataset of which clones are still to be made at
//! the target is pruned when they are: what must never happen here is that what a clone will be
//! made of goes before that.

use std::collections::HashMap;

use crate::dataset::DatasetName;
use crate::plan::tree::Task;

/// The tasks of a tree and how far each is. Those that others wait for stand before them.
#[derive(Debug)]
pub(super) struct Queue {
    slots: Vec<Slot>,
    /// All before it have begun.
    begun: usize,
    /// Those that are copied, and are pruned when their clones are.
    unpruned: Vec<usize>,
}

#[derive(Debug)]
struct Slot {
    dataset: DatasetName,
    after: Vec<usize>,
    /// What the target has yet to make of it.
    clones: Vec<usize>,
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
    /// This one is to be pruned now, unless this clone of it was not made.
    Prune(usize, Option<DatasetName>),
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
        let places: HashMap<&DatasetName, usize> =
            tasks.iter().map(|task| &task.source.dataset).zip(0..).collect();
        let mut clones = vec![Vec::new(); tasks.len()];
        for (place, task) in tasks.iter().enumerate() {
            if let Some(&origin) = task.needs().and_then(|origin| places.get(origin)) {
                clones[origin].push(place);
            }
        }
        let slot = |(task, clones): (Task, Vec<usize>)| Slot {
            dataset: task.source.dataset.clone(),
            after: task.after.clone(),
            clones,
            state: State::Waits(Box::new(task)),
        };
        let slots = tasks.into_iter().zip(clones).map(slot).collect();
        Queue { slots, begun: 0, unpruned: Vec::new() }
    }

    /// What to do next; it has begun then.
    pub fn next(&mut self) -> Next {
        // Whoever ends a task asks for the next: no pruning is left when all have ended.
        if let Some(at) = self.unpruned.iter().position(|&place| self.has_its_clones(place)) {
            let place = self.unpruned.swap_remove(at);
            return Next::Prune(place, self.failed_clone(place).cloned());
        }
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

    /// Whether clones of it are to be made at the target: it is not pruned before.
    pub fn has_clones(&self, place: usize) -> bool {
        self.slots.get(place).is_some_and(|slot| !slot.clones.is_empty())
    }

    /// One that has ended well is to be pruned when its clones have ended.
    pub fn owes_pruning(&mut self, place: usize) {
        self.unpruned.push(place);
    }

    fn has_its_clones(&self, place: usize) -> bool {
        let mut clones = self.slots[place].clones.iter().map(|&clone| &self.slots[clone].state);
        clones.all(|state| matches!(state, State::Done | State::Failed))
    }

    fn failed_clone(&self, place: usize) -> Option<&DatasetName> {
        let mut clones = self.slots[place].clones.iter().map(|&clone| &self.slots[clone]);
        clones.find(|clone| matches!(clone.state, State::Failed)).map(|clone| &clone.dataset)
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
    use crate::dataset::{Guid, Kind};
    use crate::listing::{OriginSnapshot, Snapshot, SourceState, TargetState};
    use crate::plan::tree::Verdict;

    fn tasks(after: &[&[usize]]) -> Vec<Task> {
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
        after.iter().enumerate().map(task).collect()
    }

    fn queue(after: &[&[usize]]) -> Queue {
        Queue::new(tasks(after))
    }

    /// One whose tasks from 1 on are clones of task 0, which the target has.
    fn cloned(count: usize) -> Queue {
        let mut tasks = tasks(&vec![&[][..]; count + 1]);
        let snapshot = Snapshot { name: "s".parse().unwrap(), guid: Guid(1), createtxg: 1 };
        let origin = OriginSnapshot { dataset: tasks[0].source.dataset.clone(), snapshot };
        for clone in &mut tasks[1..] {
            clone.source.origin = Some(origin.clone());
        }
        Queue::new(tasks)
    }

    fn next(queue: &mut Queue) -> String {
        match queue.next() {
            Next::Task(place, task) => {
                assert_eq!(task.below, place.to_string());
                place.to_string()
            }
            Next::Pointless(task) => format!("{} pointless", task.below),
            Next::Prune(place, None) => format!("prune {place}"),
            Next::Prune(place, Some(clone)) => format!("{place} stays for {clone}"),
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

    #[test]
    fn what_clones_are_made_of_is_pruned_when_the_last_of_them_has_ended() {
        let mut queue = cloned(2);
        assert!(queue.has_clones(0) && !queue.has_clones(1));
        assert_eq!(next(&mut queue), "0");
        queue.ended(0, true);
        queue.owes_pruning(0);
        assert_eq!([next(&mut queue), next(&mut queue), next(&mut queue)], ["1", "2", "end"]);
        queue.ended(2, true);
        assert_eq!(next(&mut queue), "end", "another one is still on its way");
        queue.ended(1, true);
        assert_eq!([next(&mut queue), next(&mut queue)], ["prune 0", "end"]);
    }

    #[test]
    fn what_a_clone_is_still_to_be_made_of_is_not_pruned() {
        let mut queue = cloned(1);
        assert_eq!([next(&mut queue), next(&mut queue)], ["0", "1"]);
        queue.ended(1, false);
        queue.ended(0, true);
        queue.owes_pruning(0);
        assert_eq!([next(&mut queue), next(&mut queue)], ["0 stays for tank/1", "end"]);
    }
}
