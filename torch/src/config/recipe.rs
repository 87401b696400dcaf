//! The recipes of `recipes.toml`: named sets of values, some for a GPU or a CPU alone, or for little or much time.

use std::ops::Range;

use toml::{Table, Value};

use crate::{Error, Result};

/// The text of `recipes.toml`.
const RECIPES: &str = include_str!("../../recipes.toml");

/// The recipe of a run that names none.
pub(super) const DEFAULT_RECIPE: &str = "default";

/// The device or devices of a run, as far as the values of recipes depend on them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Machine {
    /// A GPU.
    Gpu,
    /// CPUs.
    Cpu {
        /// Cores that compute, of all processes that train together.
        cores: usize,
        /// True if they multiply bfloat16. Those that do not are older, and slower in `f32`, too.
        bf16: bool,
    },
}

impl Machine {
    /// Two cores that multiply bfloat16, on which the default recipe was compared.
    pub const TWO_CORES: Self = Self::Cpu {
        cores: 2,
        bf16: true,
    };
}

/// The recipes by name, each a table.
fn recipe_tables() -> Table {
    toml::from_str(RECIPES).expect("recipes.toml is TOML: a test reads all of it")
}

/// The names of the recipes.
#[must_use]
pub(crate) fn recipes() -> Vec<String> {
    recipe_tables().keys().cloned().collect()
}

/// True if a recipe states a value for `key`, so that its default is not what a run gets.
#[must_use]
pub fn in_recipes(key: &str) -> bool {
    let tables = recipe_tables();
    tables.values().any(|recipe| recipe.get(key).is_some())
}

/// Parts of a recipe for a CPU, each with the times, in seconds of [`Machine::TWO_CORES`], in which it applies. A run that computes
/// as much in its time budget takes the values of that part.
const PARTS: [(&str, Range<f64>); 2] = [
    ("minutes", 0.0..10.0 * 60.0),
    ("hour", 30.0 * 60.0..f64::INFINITY),
];
/// How many times as long a step takes on cores that do not multiply bfloat16: 4.4 times in `f32` with AVX2 (Zen 3), compared
/// with AVX-512 (Zen 5), which gains another quarter by bfloat16. Those with AVX-512 and no bfloat16 lie between.
const WITHOUT_BF16: f64 = 4.0;

/// Takes the parts for some times out of a recipe's `values`.
pub(super) fn parts(values: &mut Table) -> Table {
    let parts = PARTS
        .iter()
        .filter_map(|(name, _)| values.remove_entry(*name));
    parts.collect()
}

/// The name of the part that `values` give the run the time for, if there is one.
pub(super) fn part(values: &Table, machine: Machine) -> Option<&'static str> {
    let Machine::Cpu { cores, bf16 } = machine else {
        return None;
    };
    let budget = values.get("time_budget")?.as_str()?;
    let budget = humantime::parse_duration(budget).ok()?;
    let cores = cores as f64 / if bf16 { 1.0 } else { WITHOUT_BF16 };
    let of_two = budget.as_secs_f64() * cores / 2.0;
    let part = PARTS.iter().find(|(_, times)| times.contains(&of_two));
    part.map(|(name, _)| *name)
}

/// The values of the recipe `name`, over those of its `base`, on a device that is a GPU if `cuda`. Its [`parts`] are tables
/// of their own.
pub(super) fn values(name: &str, cuda: bool) -> Result<Table> {
    let Some(Value::Table(mut values)) = recipe_tables().remove(name) else {
        return Err(Error::Value {
            key: "recipe",
            got: name.to_owned(),
            expected: format!("one of {}", recipes().join(", ")),
        });
    };
    let [cpu, gpu] = ["cpu", "cuda"].map(|kind| values.remove(kind));
    if let Some(Value::Table(own)) = if cuda { gpu } else { cpu } {
        values.extend(own);
    }
    if let Some(base) = values.remove("base") {
        let own = std::mem::replace(
            &mut values,
            self::values(base.as_str().unwrap_or_default(), cuda)?,
        );
        put(&mut values, own);
    }
    values.insert("recipe".into(), name.into());
    Ok(values)
}

/// Puts `over` over `values`. If it sets any run length, no other run length stays.
pub(super) fn put(values: &mut Table, over: Table) {
    let length = ["epochs", "max_steps", "time_budget"];
    if length.iter().any(|key| over.contains_key(*key)) {
        values.remove("max_steps");
        values.remove("time_budget");
    }
    values.extend(over);
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Layers, knobs};
    use super::*;

    fn flags(text: &str) -> Table {
        toml::from_str(text).expect("valid TOML")
    }

    #[test]
    fn every_recipe_is_whole_and_sound() {
        assert!(recipes().len() >= 2);
        for name in recipes() {
            for cuda in [false, true] {
                let mut values = values(&name, cuda).unwrap();
                for part in parts(&mut values).values() {
                    knobs::check(part.as_table().unwrap()).unwrap();
                }
                knobs::check(&values).unwrap();
                assert_eq!(Config::from_values(values).unwrap().recipe, name);
            }
        }
    }

    #[test]
    fn the_default_recipe_is_an_hour_of_a_cpu_or_thirty_epochs_of_a_gpu() {
        let on = |cuda| values(DEFAULT_RECIPE, cuda).unwrap();
        let (cpu, gpu) = (on(false), on(true));
        assert_eq!(cpu["time_budget"].as_str(), Some("60m"));
        assert_eq!(cpu["stem"].as_str(), Some("imagenet"));
        assert!(!gpu.contains_key("time_budget"));
        assert_eq!(gpu["epochs"].as_integer(), Some(30));
        assert_eq!(gpu["stem"].as_str(), Some("small"));
    }

    #[test]
    fn a_recipe_takes_what_it_does_not_state_from_its_base() {
        for cuda in [false, true] {
            let on = |name: &str| {
                let recipe = flags(&format!("recipe = '{name}'"));
                Config::layered(None, recipe, cuda).unwrap()
            };
            let (base, long) = (on("default"), on("long"));
            assert_eq!(long.length.epochs, 150);
            assert_eq!(long.length.time_budget, None);
            assert_eq!((long.augment.cutmix, long.stem), (1.0, base.stem));
            assert_eq!(long.optimizer, base.optimizer);
        }
    }

    #[test]
    fn time_and_machine_choose_a_part_unless_its_values_are_set() {
        let sizes = |text: &str| Config::layered(None, flags(text), false).unwrap().sizes;
        let budget = |time: &str| sizes(&format!("time_budget = '{time}'"));
        let [short, middle, hour] = ["9m", "10m", "30m"].map(budget);
        assert!(short != middle && middle != hour && short != hour);
        assert_eq!(
            [budget("3m"), budget("29m"), sizes("")],
            [short.clone(), middle.clone(), hour.clone()]
        );
        assert_eq!(sizes("epochs = 100"), middle);
        let on = |cores, bf16, budget: &str| {
            let layers = Layers::read(None, flags(&format!("time_budget = '{budget}'")));
            let machine = Machine::Cpu { cores, bf16 };
            layers.unwrap().config(machine).unwrap().sizes
        };
        for (cores, bf16, from, below) in [
            (8, true, "450s", "449s"),
            (1, true, "1h", "59m"),
            (2, false, "2h", "119m"),
            (8, false, "30m", "29m"),
        ] {
            assert_eq!(on(cores, bf16, from), hour, "{cores} cores, {from}");
            assert_eq!(on(cores, bf16, below), middle, "{cores} cores, {below}");
        }
        assert_eq!([on(2, false, "39m"), on(2, false, "40m")], [short, middle]);
        let full = "full".parse().unwrap();
        assert_eq!(sizes("time_budget = '1h'\nsizes = 'full'"), full);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "sizes = 'full'\ntime_budget = '1h'\n").unwrap();
        let config = Config::layered(Some(&path), flags(""), false).unwrap();
        assert_eq!(config.sizes, full);
    }
}
