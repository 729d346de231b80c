//! Starts the exporters and keeps them going. One that panics, or ends though nobody asked it to, is told of, counted,
//! and begun again from its cursor: a defect that one piece brings to light delays one exporter, not the instance.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::error;

use super::Settings;
use super::place::Place;
use crate::config::Config;
use crate::exporter::metrics::Metrics;
use crate::exporter::otlp::Stop;
use crate::exporter::outbox::Outbox;
use crate::exporter::{otlp, parquet};
use crate::telemetry::panics;

/// The pause after a first death; it doubles up to [`PAUSE_MAX`], and is short again for one that has lived so long.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Name, and whether nothing is left.
pub(super) type Exporters = JoinSet<(String, bool)>;
/// True: nothing that was asked for is left.
type Running = Pin<Box<dyn Future<Output = bool> + Send>>;
/// Prepares an exporter at its cursor.
type Prepare = Box<dyn Fn() -> anyhow::Result<Running> + Send>;

pub(super) fn start(
    config: &Config,
    place: &Place,
    settings: &Settings,
    outbox: &Arc<Outbox>,
    stop: &watch::Receiver<Stop>,
) -> anyhow::Result<Exporters> {
    let mut tasks = JoinSet::new();
    let mut add = |name: String, prepare: Prepare| {
        let subscription = outbox.subscription(&name).with_context(|| format!("{name} has no cursor"))?;
        let (running, metrics) = (prepare()?, subscription.metrics.clone());
        tasks.spawn(keep_going(name, running, prepare, metrics, stop.clone()));
        anyhow::Ok(())
    };
    if let Some(parquet) = &config.exporters.parquet {
        add(parquet::EXPORTER.to_owned(), to_parquet(parquet, place, settings, outbox, stop))?;
    }
    for (number, otlp) in config.exporters.otlp.iter().enumerate() {
        let seed = settings.seed.wrapping_add(number as u64);
        add(otlp.name.to_string(), to_otlp(otlp, seed, outbox, stop))?;
    }
    Ok(tasks)
}

fn to_parquet(
    config: &parquet::Config,
    place: &Place,
    settings: &Settings,
    outbox: &Arc<Outbox>,
    stop: &watch::Receiver<Stop>,
) -> Prepare {
    let (config, data, storage) = (config.clone(), place.data.clone(), settings.storage.clone());
    let (outbox, stop) = (outbox.clone(), stop.clone());
    Box::new(move || {
        let exporter = parquet::Exporter::build(outbox.clone(), storage.clone(), &data, &config);
        let exporter = exporter.context("prepare the Parquet exporter")?.context("it has no cursor")?;
        Ok(Box::pin(exporter.run(stop.clone())))
    })
}

fn to_otlp(config: &otlp::Config, seed: u64, outbox: &Arc<Outbox>, stop: &watch::Receiver<Stop>) -> Prepare {
    let (config, outbox, stop) = (config.clone(), outbox.clone(), stop.clone());
    Box::new(move || {
        let name = &config.name;
        let tail = outbox.tail(name.as_str()).with_context(|| format!("exporter {name} has no cursor"))?;
        let exporter = otlp::Exporter::build(&config, tail, seed);
        let exporter = exporter.with_context(|| format!("prepare exporter {name}"))?;
        Ok(Box::pin(exporter.run(stop.clone())))
    })
}

/// Runs an exporter until `stop` says otherwise, however often it dies.
async fn keep_going(
    name: String,
    mut running: Running,
    prepare: Prepare,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<Stop>,
) -> (String, bool) {
    let mut pause = PAUSE;
    loop {
        let began = Instant::now();
        let mut reason = match AssertUnwindSafe(running).catch_unwind().await {
            Ok(done) if is_over(&stop) => return (name, done),
            Ok(_) => "it has ended by itself".to_owned(),
            Err(panic) => format!("it has panicked: {}", panics::text(&*panic)),
        };
        if began.elapsed() > PAUSE_MAX {
            pause = PAUSE;
        }
        running = loop {
            error!(exporter = name, error = reason, "exporter has died, it is begun again at its cursor");
            metrics.died(&reason);
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.changed() => {}
            }
            if matches!(*stop.borrow(), Stop::Finish { .. }) || stop.has_changed().is_err() {
                return (name, false);
            }
            pause = (pause * 2).min(PAUSE_MAX);
            match prepare() {
                Ok(again) => break again,
                Err(error) => reason = format!("{error:#}"),
            }
        };
    }
}

/// It was asked to end, or nobody is there any more who could ask.
fn is_over(stop: &watch::Receiver<Stop>) -> bool {
    *stop.borrow() != Stop::Run || stop.has_changed().is_err()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use crate::exporter::metrics::Obstacle;

    fn exporter(
        life: impl Fn(u32) -> Running + Send + 'static,
    ) -> (watch::Sender<Stop>, Arc<Metrics>, tokio::task::JoinHandle<(String, bool)>) {
        let (stop, stops) = watch::channel(Stop::Run);
        let metrics = Arc::new(Metrics::default());
        let lives = AtomicU32::new(0);
        let prepare: Prepare = Box::new(move || Ok(life(lives.fetch_add(1, Relaxed))));
        let running = prepare().unwrap();
        let task = tokio::spawn(keep_going("tempo".to_owned(), running, prepare, metrics.clone(), stops));
        (stop, metrics, task)
    }

    #[tokio::test(start_paused = true)]
    async fn an_exporter_that_panics_or_ends_is_begun_again_after_growing_pauses() {
        let (stop, metrics, task) = exporter(|life| {
            Box::pin(async move {
                match life {
                    0..8 => panic!("on purpose"),
                    8 => true,
                    _ => std::future::pending().await,
                }
            })
        });
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!((metrics.deaths(), metrics.obstacle()), (1, Some(Obstacle::Defect)));
        assert_eq!(metrics.last_error().as_deref(), Some("it has panicked: on purpose"));
        while metrics.deaths() < 9 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(metrics.last_error().as_deref(), Some("it has ended by itself"));
        let pauses: u64 = [1, 2, 4, 8, 16, 32, 60, 60].iter().sum();
        assert!(began.elapsed().as_secs().abs_diff(pauses) <= 2, "{:?}", began.elapsed());
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(metrics.deaths(), 9);
        task.abort();
        drop(stop);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_died_does_not_keep_the_process_from_its_end() {
        let (stop, _, task) = exporter(|_| Box::pin(async { panic!("on purpose") }));
        tokio::time::sleep(Duration::from_secs(600)).await;
        let began = Instant::now();
        stop.send_replace(Stop::Finish { deadline: began + Duration::from_secs(5) });
        assert_eq!(task.await.unwrap(), ("tempo".to_owned(), false));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}
