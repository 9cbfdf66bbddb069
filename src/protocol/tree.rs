//! What a target holds of a whole tree, in pages that fit into messages, and back.
//!
//! The server deals out pages, no further ahead than its client lets it; the client joins them. A
//! tree has no natural end, so all that either holds is bounded, and every page must move it on.
//! What must never happen here: that a dataset is told with another one's snapshots, or twice.

use std::vec;

use super::listing::{TOKEN_BYTES_MAX, check_token, quoted_bytes};
use super::message::{Message, RelativeName};
use super::misbehaved::PeerMisbehaved;
use super::piece::{Node, Piece};
use super::text::MESSAGE_BYTES_MAX;
use crate::dataset::{DatasetName, Guid, NAME_BYTES_MAX};
use crate::error::{Class, Failure, Side};
use crate::listing::{Snapshot, TargetDataset, TargetState, TargetTree};

/// How many pages a client lets come before it says that there may be more: 4 MiB, so that a line
/// of 100 ms brings 40 MiB a second.
pub(super) const PAGES_AHEAD: u32 = 64;

/// How many a client may let come that it has not heard. Until they are confirmed they stay in the
/// server's memory.
pub(super) const PAGES_AHEAD_MAX: u32 = 4 * PAGES_AHEAD;

/// The largest tree. A client holds all of it, in some 300 MiB.
const MOST: Size = Size { datasets: 1 << 17, snapshots: 1 << 21, text_bytes: 128 << 20 };

/// What a page may hold beside the name of the root and what stands around its pieces.
const PAGE_BYTES: usize = MESSAGE_BYTES_MAX - NAME_BYTES_MAX - 256;

/// `["",,],` and two numbers, of 20 digits at most. Names have no character that JSON would escape.
const ROW_BYTES: usize = 7;

/// `{"dataset":{"name":"","kind":"filesystem","encrypted":true,"resume_token":""},"snapshots":[]},`
const PIECE_BYTES: usize = 96;

// A dataset always finds room in a page of its own, with a snapshot.
const _: () =
    assert!(PIECE_BYTES + 2 * NAME_BYTES_MAX + TOKEN_BYTES_MAX + ROW_BYTES + 2 * 20 <= PAGE_BYTES);

/// How much a tree has.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    datasets: usize,
    /// All of them together.
    snapshots: usize,
    /// Of names and tokens.
    text_bytes: usize,
}

/// What a server has yet to tell of a tree.
#[derive(Debug)]
pub(super) struct Pages {
    root: DatasetName,
    is_first: bool,
    datasets: vec::IntoIter<TargetDataset>,
    /// Of the dataset that was told last.
    snapshots: vec::IntoIter<Snapshot>,
}

impl Pages {
    /// All of a tree, unless it is too large for any client.
    pub fn of(tree: TargetTree) -> Result<Pages, Failure> {
        Pages::within(MOST, tree)
    }

    fn within(most: Size, tree: TargetTree) -> Result<Pages, Failure> {
        let TargetTree { root, mut datasets } = tree;
        // One that is not there has nothing to tell.
        datasets.retain(|one| one.state != TargetState::Absent);
        // A client takes them in no other order.
        datasets.sort_by(|one, other| one.dataset.cmp(&other.dataset));
        let mut size = Size::default();
        for dataset in &datasets {
            check(&root, dataset)?;
            size.add(dataset);
        }
        size.check(most).map_err(|(max, of)| {
            let what = format!("{root} and what lies below it have more than {max} {of}");
            Failure::new(Side::Target, Class::Refused, what)
                .with_remedy("replicate it in parts, to several targets")
        })?;
        let (datasets, snapshots) = (datasets.into_iter(), Vec::new().into_iter());
        Ok(Pages { root, is_first: true, datasets, snapshots })
    }

    /// Whether the last page was told.
    pub fn are_over(&self) -> bool {
        !self.is_first && !self.has_more()
    }

    fn has_more(&self) -> bool {
        self.snapshots.len() > 0 || self.datasets.len() > 0
    }

    /// The next page.
    pub fn tell(&mut self) -> Message {
        let pieces = self.pieces();
        let more = self.has_more();
        if std::mem::take(&mut self.is_first) {
            return Message::TreeListed { root: self.root.clone(), pieces, more };
        }
        Message::TreeListedMore { pieces, more }
    }

    /// As many as fit.
    fn pieces(&mut self) -> Vec<Piece> {
        let (mut room, mut pieces) = (PAGE_BYTES, Vec::new());
        if self.snapshots.len() > 0 {
            room -= PIECE_BYTES;
            pieces.push(Piece { dataset: None, snapshots: self.rows(&mut room) });
        }
        while self.snapshots.len() == 0
            && let Some(next) = self.datasets.as_slice().first()
            && let Some(left) = room.checked_sub(PIECE_BYTES + node_bytes(next))
            && let Some(TargetDataset { dataset, state }) = self.datasets.next()
        {
            room = left;
            let TargetState::Present { kind, encrypted, snapshots, resume_token } = state else {
                continue;
            };
            let name = below(&self.root, &dataset);
            self.snapshots = snapshots.into_iter();
            let dataset = Some(Node { name, kind, encrypted, resume_token });
            pieces.push(Piece { dataset, snapshots: self.rows(&mut room) });
        }
        pieces
    }

    /// The next snapshots of the dataset that is being told, as many as there is room for.
    fn rows(&mut self, room: &mut usize) -> Vec<Snapshot> {
        let rest = self.snapshots.as_slice();
        let fits = |row: &&Snapshot| match room.checked_sub(row_bytes(row)) {
            Some(left) => {
                *room = left;
                true
            }
            None => false,
        };
        let count = rest.iter().take_while(fits).count();
        self.snapshots.by_ref().take(count).collect()
    }
}

/// What a client has heard of a tree so far.
#[derive(Debug)]
pub(super) struct Tree {
    root: DatasetName,
    datasets: Vec<TargetDataset>,
    size: Size,
    /// How large it may become.
    most: Size,
    /// How many came.
    pages: u32,
}

/// What came of a tree so far.
#[derive(Debug)]
pub(super) enum Heard {
    /// All of it.
    Whole(TargetTree),
    /// [`Message::TreeListedMore`] must follow.
    Partial(Tree),
}

impl Tree {
    /// From the first page.
    pub fn begin(
        root: DatasetName,
        pieces: Vec<Piece>,
        more: bool,
    ) -> Result<Heard, PeerMisbehaved> {
        let tree = Tree::new(root, MOST);
        // Of a root that does not exist nothing is told.
        if pieces.is_empty() && !more { Ok(tree.heard(more)) } else { tree.join(pieces, more) }
    }

    fn new(root: DatasetName, most: Size) -> Tree {
        Tree { root, datasets: Vec::new(), size: Size::default(), most, pages: 0 }
    }

    /// With one more page.
    pub fn join(mut self, pieces: Vec<Piece>, more: bool) -> Result<Heard, PeerMisbehaved> {
        if pieces.is_empty() {
            return Err(PeerMisbehaved::ListingStands);
        }
        for (place, Piece { dataset, snapshots }) in pieces.into_iter().enumerate() {
            match dataset {
                Some(node) => self.add(node, snapshots)?,
                None if place == 0 && !snapshots.is_empty() => self.go_on(snapshots)?,
                None => return Err(PeerMisbehaved::ListingStands),
            }
            let told = self.size.check(self.most);
            told.map_err(|(max, of)| PeerMisbehaved::TreeTooLarge { max, of })?;
        }
        Ok(self.heard(more))
    }

    fn heard(self, more: bool) -> Heard {
        if more {
            return Heard::Partial(Tree { pages: self.pages.saturating_add(1), ..self });
        }
        let Tree { root, datasets, .. } = self;
        Heard::Whole(TargetTree { root, datasets })
    }

    /// How many pages the server is to be told that may come, now and then.
    pub fn room(&self) -> Option<u32> {
        let is_time = self.pages.is_multiple_of(PAGES_AHEAD / 4);
        is_time.then(|| self.pages.saturating_add(PAGES_AHEAD))
    }

    /// Another dataset. The root comes first, and all others behind what their names begin with.
    fn add(&mut self, node: Node, snapshots: Vec<Snapshot>) -> Result<(), PeerMisbehaved> {
        let Node { name, kind, encrypted, resume_token } = node;
        let dataset = match &name {
            None => self.root.clone(),
            Some(name) => self.root.join(name.as_str()).map_err(PeerMisbehaved::TreeName)?,
        };
        let in_order = match self.datasets.last() {
            None => name.is_none(),
            Some(last) => last.dataset < dataset,
        };
        if !in_order {
            return Err(PeerMisbehaved::TreeOrder { dataset });
        }
        let state = TargetState::Present { kind, encrypted, snapshots, resume_token };
        let dataset = TargetDataset { dataset, state };
        self.size.add(&dataset);
        self.datasets.push(dataset);
        Ok(())
    }

    /// More snapshots of the last dataset.
    fn go_on(&mut self, next: Vec<Snapshot>) -> Result<(), PeerMisbehaved> {
        let Some(TargetDataset { state: TargetState::Present { snapshots, .. }, .. }) =
            self.datasets.last_mut()
        else {
            return Err(PeerMisbehaved::ListingStands);
        };
        self.size.add_snapshots(&next);
        snapshots.extend(next);
        Ok(())
    }
}

impl Size {
    fn add(&mut self, dataset: &TargetDataset) {
        self.datasets += 1;
        self.text_bytes += node_bytes(dataset);
        if let TargetState::Present { snapshots, .. } = &dataset.state {
            self.add_snapshots(snapshots);
        }
    }

    fn add_snapshots(&mut self, snapshots: &[Snapshot]) {
        self.snapshots += snapshots.len();
        self.text_bytes += snapshots.iter().map(|one| one.name.as_str().len()).sum::<usize>();
    }

    /// Whether a client can be asked to hold that; else what is too much.
    fn check(&self, most: Size) -> Result<(), (usize, &'static str)> {
        let counts = [
            (self.datasets, most.datasets, "datasets"),
            (self.snapshots, most.snapshots, "snapshots"),
            (self.text_bytes, most.text_bytes, "bytes of names and tokens"),
        ];
        let beyond = counts.into_iter().find(|(count, max, _)| count > max);
        beyond.map_or(Ok(()), |(_, max, of)| Err((max, of)))
    }
}

/// Whether a dataset can be told of at all.
fn check(
    root: &DatasetName,
    TargetDataset { dataset, state }: &TargetDataset,
) -> Result<(), Failure> {
    if dataset != root && below(root, dataset).is_none() {
        let what = format!("{dataset} cannot be named below {root}");
        return Err(Failure::new(Side::Target, Class::Refused, what)
            .with_remedy("rename it: its name is too long"));
    }
    match state {
        TargetState::Present { resume_token, .. } => check_token(resume_token.as_deref()),
        TargetState::Absent => Ok(()),
    }
}

/// The name below the root; `None` for the root itself.
fn below(root: &DatasetName, dataset: &DatasetName) -> Option<RelativeName> {
    dataset.as_str().strip_prefix(root.as_str())?.strip_prefix('/')?.parse().ok()
}

/// What a dataset's name and token take in a message, at most.
fn node_bytes(TargetDataset { dataset, state }: &TargetDataset) -> usize {
    let token = match state {
        TargetState::Present { resume_token: Some(token), .. } => quoted_bytes(token),
        _ => 0,
    };
    dataset.as_str().len() + token
}

fn row_bytes(Snapshot { name, guid: Guid(guid), createtxg }: &Snapshot) -> usize {
    let digits = |number: &u64| number.checked_ilog10().map_or(1, |places| places as usize + 1);
    ROW_BYTES + name.as_str().len() + digits(guid) + digits(createtxg)
}

#[cfg(test)]
mod tests;
