use sha2::{Digest, Sha256};

use super::image_folder::TRAIN;
use super::{Error, Item, Source, Split};

impl Source {
    /// Moves `fraction` of the train images, more than 0 and less than 1, to a validation split,
    /// each by its own name as the [module's documentation](super) states. Both keep their order.
    pub fn hold_out(&mut self, fraction: f64) -> Result<(), Error> {
        if self.splits.iter().any(|(split, _)| *split == Split::Val) {
            return Err(Error::HasVal {
                tree: self.tree.show(""),
            });
        }
        // A source that opened without a problem has train images, and they come first.
        let Some((Split::Train, train)) = self.splits.first_mut() else {
            return Ok(());
        };
        let is_held = |item: &Item| place(&item.name) < fraction;
        let (held, all) = (
            train.iter().filter(|item| is_held(item)).count(),
            train.len(),
        );
        if held == 0 || held == all {
            return Err(Error::HoldOut {
                fraction,
                held,
                all,
            });
        }
        let val = train.extract_if(.., |item| is_held(item)).collect();
        self.splits.insert(1, (Split::Val, val));
        Ok(())
    }
}

/// Where in 0..1 the image called `name` stands: the first 53 bits of the SHA-256 of its path in
/// train, over 2^53.
fn place(name: &str) -> f64 {
    let path = name
        .strip_prefix(TRAIN)
        .and_then(|path| path.strip_prefix('/'))
        .unwrap_or(name);
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(path));
    let bits = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 11) / 2**53` says
    /// the same. Whatever these were once, they stay: a set that has grown keeps its split.
    #[test]
    fn places_never_change() {
        for (name, expected) in [
            ("cat/1.jpg", 0.387848362237434),
            ("dog/nested/é.png", 0.5224747978537532),
            ("n01440764/ILSVRC2012_val_00000293.JPEG", 0.6380542891315172),
        ] {
            assert_eq!(place(name), expected);
            assert_eq!(place(&format!("train/{name}")), expected);
            assert_ne!(place(&format!("training/{name}")), expected);
        }
    }
}
