//! Values as they are typed: for the flags of what ssh starts.

use clap::ValueEnum;

/// A value of an enumeration.
pub(super) fn typed(value: &impl ValueEnum) -> String {
    let possible = value.to_possible_value();
    possible.map(|value| value.get_name().to_owned()).unwrap_or_default()
}
