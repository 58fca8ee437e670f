//! Blocks of measurements, ours and the peer's by turns, and what is read from them.
//!
//! Invariant: both sides have the same number of blocks, at least [`BLOCKS_MIN`]; who goes first changes with every turn.

/// The fewest blocks of each side that make a figure.
pub const BLOCKS_MIN: usize = 5;

/// What was measured, one value a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks<T = f64> {
    /// Ours.
    pub ours: Vec<T>,
    /// The peer's.
    pub peer: Vec<T>,
}

/// The middle of some values and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The least value.
    pub least: f64,
    /// The value in the middle.
    pub median: f64,
    /// The greatest value.
    pub greatest: f64,
}

/// Takes `count` blocks of each side by turns; fewer than [`BLOCKS_MIN`] are raised to it. A block gives one value, in
/// whatever unit both sides agree on, or several of them.
///
/// # Errors
/// The first error of either side.
pub fn alternate<T, E>(
    count: usize,
    mut ours: impl FnMut() -> Result<T, E>,
    mut peer: impl FnMut() -> Result<T, E>,
) -> Result<Blocks<T>, E> {
    let mut blocks = Blocks { ours: Vec::new(), peer: Vec::new() };
    for turn in 0..count.max(BLOCKS_MIN) {
        if turn % 2 == 0 {
            blocks.ours.push(ours()?);
            blocks.peer.push(peer()?);
        } else {
            blocks.peer.push(peer()?);
            blocks.ours.push(ours()?);
        }
    }
    Ok(blocks)
}

impl Spread {
    /// Of some values; `None` if there are none or one of them is not a number.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        if sorted.iter().any(|value| value.is_nan()) {
            return None;
        }
        Some(Self { least, median: quantile(&sorted, 0.5), greatest })
    }

    /// How far the values lie apart, as a share of the median.
    pub fn relative(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { (self.greatest - self.least) / self.median.abs() }
    }
}

/// The value below which a share of the sorted values lies, between neighbours in proportion. For p50, p99 inside a block.
///
/// # Panics
/// If there are no values.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    assert!(!sorted.is_empty(), "a quantile needs values");
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn turns_alternate_and_are_enough() {
        let order = RefCell::new(String::new());
        let side = |name: char| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok::<f64, ()>(1.0)
            }
        };
        let blocks = alternate(2, side('o'), side('p')).unwrap();
        assert_eq!(order.borrow().as_str(), "oppooppoop");
        assert_eq!((blocks.ours.len(), blocks.peer.len()), (BLOCKS_MIN, BLOCKS_MIN));
    }

    #[test]
    fn an_error_of_either_side_comes_back() {
        assert_eq!(alternate(5, || Ok(1.0), || Err("peer")), Err("peer"));
    }

    #[test]
    fn the_median_is_not_moved_by_one_bad_block() {
        let spread = Spread::of(&[10.0, 11.0, 900.0, 9.0, 10.5]).unwrap();
        assert_eq!((spread.least, spread.median, spread.greatest), (9.0, 10.5, 900.0));
        assert_eq!(Spread::of(&[1.0, 3.0]).unwrap().median, 2.0);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::of(&[9.0, 10.0, 11.0]).unwrap().relative(), 0.2);
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(
            (quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)),
            (50.0, 99.0, 100.0)
        );
        assert_eq!(quantile(&[7.0], 0.9), 7.0);
    }
}
