//! Work and its limit by turns. The speed of a busy machine drifts from one benchmark to the next, so
//! what compares two is the ratio of rounds that do both, one right after the other.

use std::time::{Duration, Instant};

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;

/// Measures `work` as the group's benchmark `name`, with a `limit` before every round. Prints the
/// median rate of both, and the median over the rounds of the one rate as a part of the other.
pub fn by_turns(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    images: usize,
    (limit_name, mut limit): (&str, impl FnMut() -> Duration),
    mut work: impl FnMut() -> Duration,
) {
    let mut rounds: Vec<[Duration; 2]> = Vec::new();
    group.bench_function(name, |bench| {
        bench.iter_custom(|count| {
            let round = |_| {
                let round = [limit(), work()];
                rounds.push(round);
                round[1]
            };
            (0..count).map(round).sum()
        });
    });
    if rounds.is_empty() {
        return; // Not among the benchmarks that were asked for.
    }
    let median = |figure: fn(&[Duration; 2]) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let rate = |seconds: f64| images as f64 / seconds;
    println!(
        "{:24}by turns, medians of {} rounds: {:.0} images/s, {limit_name} {:.0} images/s, ratio {:.2}\n",
        "",
        rounds.len(),
        rate(median(|[_, work]| work.as_secs_f64())),
        rate(median(|[limit, _]| limit.as_secs_f64())),
        median(|[limit, work]| limit.div_duration_f64(*work)),
    );
}

/// How long `work` takes; what it returns is dropped after that.
pub fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let began = Instant::now();
    let done = work();
    let took = began.elapsed();
    drop(done);
    took
}
