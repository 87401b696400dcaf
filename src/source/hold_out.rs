//! Splits a validation set off the train images, by a hash of each image's name.

use sha2::{Digest, Sha256};

use super::{Error, Item, Source, Split};

impl Source {
    /// Moves `fraction` of the train images, more than 0 and less than 1, to a validation split. The
    /// name of an image decides, by the rule of the [module's documentation](super). Both splits keep
    /// their order.
    ///
    /// # Errors
    /// The source has a validation split already, or one of the two splits would be empty.
    pub fn hold_out(&mut self, fraction: f64) -> Result<(), Error> {
        if self.splits.iter().any(|(split, _)| *split == Split::Val) {
            return Err(Error::HasVal {
                tree: self.storage.display(),
            });
        }
        // A source that opened without a problem has train images, and they come first.
        let Some((Split::Train, train)) = self.splits.first_mut() else {
            return Ok(());
        };
        let prefix = &self.train;
        let is_held = |item: &Item| hash_fraction(&item.name, prefix) < fraction;
        let (held, all) = (
            train.iter().filter(|item| is_held(item)).count(),
            train.len(),
        );
        if held == 0 || held == all {
            return Err(Error::HoldOut {
                fraction,
                held,
                all,
                fits: self.fraction_to_hold_out(),
            });
        }
        let val = train.extract_if(.., |item| is_held(item)).collect();
        self.splits.insert(1, (Split::Val, val));
        Ok(())
    }

    /// The fraction that a message proposes to hold out: a tenth of the train images, or the next tenth that takes
    /// some and leaves some. `None` if none does.
    pub(crate) fn fraction_to_hold_out(&self) -> Option<f64> {
        let Some((Split::Train, train)) = self.splits.first() else {
            return None;
        };
        let places = train
            .iter()
            .map(|item| hash_fraction(&item.name, &self.train));
        let (first, last) = places.fold((1.0_f64, 0.0_f64), |(first, last), place| {
            (first.min(place), last.max(place))
        });
        let mut tenths = (1..10).map(|tenths| f64::from(tenths) / 10.0);
        tenths.find(|fraction| first < *fraction && *fraction <= last)
    }
}

/// A number in 0..1 for the image called `name`: the first 53 bits of the SHA-256 of its path in
/// the folder of `train`, divided by 2^53.
fn hash_fraction(name: &str, train: &str) -> f64 {
    let path = name
        .strip_prefix(train)
        .and_then(|path| path.strip_prefix('/'))
        .unwrap_or(name);
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(path));
    let bits = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed in Python: `(int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") >> 11) / 2**53`.
    /// They must never change, or a set that grows would move images between its splits.
    #[test]
    fn hash_fraction_of_a_name_never_changes() {
        for (name, expected) in [
            ("cat/1.jpg", 0.387848362237434),
            ("dog/nested/é.png", 0.5224747978537532),
            ("n01440764/ILSVRC2012_val_00000293.JPEG", 0.6380542891315172),
        ] {
            for train in ["train", "seg_train/seg_train"] {
                assert_eq!(hash_fraction(name, train), expected);
                assert_eq!(hash_fraction(&format!("{train}/{name}"), train), expected);
            }
            assert_ne!(
                hash_fraction(&format!("training/{name}"), "train"),
                expected
            );
        }
    }
}
