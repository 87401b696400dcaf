//! The flags of `tinyres train` that set a value of its configuration: one for each knob.

use clap::builder::{
    BoolValueParser, PossibleValuesParser, StringValueParser, TypedValueParser as _,
};
use clap::{
    Arg, ArgAction, ArgGroup, ArgMatches, Command, FromArgMatches, ValueHint, value_parser,
};
use tinyres_torch::Error;
use tinyres_torch::config::in_recipes;
use tinyres_torch::config::knobs::{KNOBS, Kind, Knob};
use toml::{Table, Value};

/// The values of a configuration that were given as flags, under their keys: one flag for each of [`KNOBS`].
#[derive(Clone)]
pub(super) struct Flags(pub Table);

impl Flags {
    /// Every knob that has a flag.
    fn knobs() -> impl Iterator<Item = &'static Knob> {
        KNOBS
            .iter()
            .filter(|knob| !matches!(knob.kind, Kind::Recorded))
    }
}

impl clap::Args for Flags {
    fn group_id() -> Option<clap::Id> {
        Some("Flags".into())
    }

    fn augment_args(command: Command) -> Command {
        let keys = Self::knobs().map(|knob| knob.key);
        let group = ArgGroup::new("Flags").multiple(true).args(keys);
        Self::knobs()
            .fold(command, |command, knob| command.arg(flag(knob)))
            .group(group)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self(Table::new());
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for knob in Self::knobs() {
            let Some(mut values) = matches.get_many::<Value>(knob.key) else {
                continue;
            };
            let value = match knob.kind {
                Kind::Names(_) => Some(Value::Array(values.cloned().collect())),
                _ => values.next_back().cloned(),
            };
            self.0
                .extend(value.map(|value| (knob.key.to_owned(), value)));
        }
        Ok(())
    }
}

/// The flag of `knob`. It checks the type of a value; [`Layers::read`](tinyres_torch::config::Layers::read) checks the bounds, as for a file.
fn flag(knob: &'static Knob) -> Arg {
    let mut help = knob.help.to_owned();
    // A default that a recipe overrides would mislead.
    if !knob.default.is_empty() && !in_recipes(knob.key) {
        let default = knob.default.trim_matches(['"', '[', ']']);
        let default = if default.is_empty() { "none" } else { default };
        help += &format!(" [default: {default}]");
    }
    let flag = Arg::new(knob.key)
        .long(knob.key.replace('_', "-"))
        .value_name(knob.value_name)
        .help(help)
        .help_heading(knob.heading);
    match knob.kind {
        Kind::Integer(_, most) => {
            let range = value_parser!(u64).range(..=most);
            flag.value_parser(range.map(|n| Value::Integer(n.cast_signed())))
        }
        Kind::Number(..) => flag.value_parser(|text: &str| text.parse().map(Value::Float)),
        Kind::Bool => flag.value_parser(BoolValueParser::new().map(Value::Boolean)),
        Kind::Switch => flag
            .value_parser(BoolValueParser::new().map(Value::Boolean))
            .num_args(0..=1)
            .default_missing_value("true"),
        Kind::Name(names) => flag.value_parser(PossibleValuesParser::new(names).map(Value::String)),
        Kind::Names(names) => flag
            .value_parser(PossibleValuesParser::new(names).map(Value::String))
            .value_delimiter(',')
            .action(ArgAction::Append),
        Kind::File => flag
            .value_parser(StringValueParser::new().map(Value::String))
            .value_hint(ValueHint::FilePath),
        Kind::Text(accepts) | Kind::CountOrText(accepts) => {
            // clap names the flag and its value.
            let expected = |error| match error {
                Error::Value { expected, .. } => format!("expected {expected}"),
                other => other.to_string(),
            };
            flag.value_parser(move |text: &str| {
                accepts(text).map(|()| Value::from(text)).map_err(expected)
            })
        }
        Kind::Recorded => flag.hide(true),
    }
}
