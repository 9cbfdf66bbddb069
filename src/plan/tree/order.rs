//! Puts datasets that wait for each other into an order.

use std::collections::BTreeSet;

/// What must be there before a dataset: places of others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// What it lies in.
    pub above: Option<usize>,
    /// What it was cloned from.
    pub origin: Option<usize>,
}

impl Waits {
    pub fn all(self) -> impl Iterator<Item = usize> {
        self.above.into_iter().chain(self.origin)
    }
}

/// All places, each behind those that it waits for, otherwise as they come. A clone can lie above
/// what it was made from: where datasets wait for each other in a circle, one of them lets go of
/// its origin.
pub(super) fn ordered(waits: &mut [Waits]) -> Vec<usize> {
    let mut followers = vec![Vec::new(); waits.len()];
    for (place, wait) in waits.iter().enumerate() {
        wait.all().for_each(|wait| followers[wait].push(place));
    }
    let is_ready =
        |waits: &[Waits], done: &[bool], place: usize| waits[place].all().all(|wait| done[wait]);
    let mut done = vec![false; waits.len()];
    let mut stuck: BTreeSet<usize> = (0..waits.len()).collect();
    let mut ready: BTreeSet<usize> =
        stuck.iter().copied().filter(|&place| is_ready(waits, &done, place)).collect();
    let mut order = Vec::with_capacity(waits.len());
    loop {
        while let Some(place) = ready.pop_first() {
            stuck.remove(&place);
            order.push(place);
            done[place] = true;
            let free = followers[place].iter().copied();
            ready.extend(free.filter(|&it| stuck.contains(&it) && is_ready(waits, &done, it)));
        }
        let Some(&first) = stuck.first() else { return order };
        let freed = open_circle(waits, &done, first);
        if is_ready(waits, &done, freed) {
            ready.insert(freed);
        }
    }
}

/// Follows the waits from `place` until they come back on themselves, and has one of the circle
/// let go; that one.
fn open_circle(waits: &mut [Waits], done: &[bool], mut place: usize) -> usize {
    let open = |wait: Option<usize>| wait.filter(|&wait| !done[wait]);
    let mut way = Vec::new();
    while let Some(next) = open(waits[place].origin).or(open(waits[place].above)) {
        way.push(place);
        place = next;
        if let Some(begin) = way.iter().position(|&seen| seen == place) {
            way.drain(..begin);
            break;
        }
    }
    // No dataset lies in itself, so there is an origin in every circle.
    let clone = way.iter().copied().find(|&it| open(waits[it].origin).is_some());
    match clone {
        Some(clone) => waits[clone].origin = None,
        None => waits[place].above = None,
    }
    clone.unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waits(all: &[(Option<usize>, Option<usize>)]) -> Vec<Waits> {
        all.iter().map(|&(above, origin)| Waits { above, origin }).collect()
    }

    #[test]
    fn what_waits_comes_later_and_all_else_as_it_stood() {
        let none = (None, None);
        assert_eq!(ordered(&mut waits(&[none, none, none])), [0, 1, 2]);
        let mut chained = waits(&[(None, Some(2)), (Some(0), None), none]);
        assert_eq!(ordered(&mut chained), [2, 0, 1]);
        assert_eq!(chained[0].origin, Some(2));
    }

    #[test]
    fn a_clone_above_its_origin_lets_go_of_it_and_those_behind_let_go_of_nothing() {
        // 0 waits for what waits for itself.
        let mut circle = waits(&[(Some(1), None), (None, Some(2)), (Some(1), None)]);
        assert_eq!(ordered(&mut circle), [1, 0, 2]);
        assert_eq!(circle, waits(&[(Some(1), None), (None, None), (Some(1), None)]));
    }

    proptest! {
        #[test]
        fn each_comes_once_and_behind_all_that_it_still_waits_for(
            // A dataset lies in one that comes before it.
            all in prop::collection::vec((any::<prop::sample::Index>(), 0usize..24), 12)
        ) {
            let wait = |(place, &(above, origin)): (usize, &(prop::sample::Index, usize))| Waits {
                above: (place > 0 && above.index(3) > 0).then(|| above.index(place)),
                origin: (origin < 12 && origin != place).then_some(origin),
            };
            let before: Vec<Waits> = all.iter().enumerate().map(wait).collect();
            let mut left = before.clone();
            let order = ordered(&mut left);
            let place = |of: usize| order.iter().position(|&it| it == of).unwrap();
            prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 12);
            prop_assert_eq!(order.len(), 12);
            for (own, waits) in left.iter().enumerate() {
                prop_assert!(waits.all().all(|wait| place(wait) < place(own)));
                prop_assert_eq!(waits.above, before[own].above, "only origins are let go of");
            }
        }
    }
}
