//! One wish that was granted, and what the pool itself has to say to it.

use super::making::{Announced, Making};
use super::pool::Pool;
use crate::dataset::Guid;
use crate::dataset::property::Properties;
use crate::error::{Failure, Side};
use crate::retention::Rules;
use crate::trust::grants::{Limits, Permit};
use crate::zfs::below::Way;

/// That one wish is granted.
#[derive(Clone, Debug)]
pub(super) struct Leave {
    permit: Permit,
    making: Making,
}

impl Leave {
    /// By this permit; `making` knows what other transfers are about to make.
    pub fn new(permit: Permit, making: Making) -> Leave {
        Leave { permit, making }
    }

    /// Whether the root is the dataset that was granted.
    pub fn check_root(&self, found: Guid) -> Result<(), Failure> {
        self.permit.check_root(found).map_err(|denied| denied.on_target())
    }

    /// What stays below the root, whatever the client wants pruned.
    pub fn keep(&self) -> Option<&Rules> {
        self.permit.keep()
    }

    /// How much the client may have below the root.
    pub fn limits(&self) -> Limits {
        self.permit.limits()
    }

    /// Whether the client may set these.
    pub fn check_properties(&self, properties: &Properties) -> Result<(), Failure> {
        let mut names = properties.iter().map(|(name, _)| name);
        let checked = names.try_for_each(|name| self.permit.check_property(name));
        checked.map_err(|denied| denied.on_target())
    }

    /// Whether the client may have another transfer beside so many that run below the root.
    pub fn check_transfers(&self, running: usize) -> Result<(), Failure> {
        self.permit.check_transfers(running).map_err(|denied| denied.on_target())
    }

    /// Whether a dataset may be made, with all that is missing above it. It counts as made for as
    /// long as what is returned lives.
    pub fn to_make(&self, pool: &Pool, way: &Way) -> Result<Option<Announced>, Failure> {
        let Leave { permit, making } = self;
        if !way.missing.is_empty() {
            permit.check_parents().map_err(|denied| denied.on_target())?;
        }
        if permit.limits().datasets.is_none() {
            return Ok(None);
        }
        let names = way.missing.iter().chain([permit.dataset()]).cloned().collect();
        let there = || pool.zfs.names_below(&pool.root).map_err(|error| error.on(Side::Target));
        let may_be = |count| permit.check_datasets(count).map_err(|denied| denied.on_target());
        making.announce(&pool.root, names, there, may_be).map(Some)
    }
}
