//! `foveactl models eval`: what a bundle is worth on a site's own labelled pictures, before the site trusts it.
//!
//! In: a bundle, `labels.csv`, folders of pictures and masks. Out: figures as lines or JSON, and a page.
//! Promise: every picture goes through the sandboxed worker and the code of production; nothing leaves the machine; memory does not grow
//! with the pictures, only by some hundred bytes a case.

mod cases;
mod html;
mod labels;
mod look;
mod metrics;
mod report;
mod result;
mod thumbs;
mod truth;

pub use look::config;

use anyhow::Context;
use cases::{Case, Folders};
use clap::Args;
use fovea_infer::{Bundle, BundleFiles, Manifest};
use html::Target;
use look::Bench;
use result::{CaseResult, Ruler, Summary};
use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status after Ctrl-C: 128 and the signal's number, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// See `--help`: it is what users read.
#[derive(Args)]
#[command(after_help = DEFINITIONS)]
pub struct EvalArgs {
    /// The bundle: a folder with a bundle.toml, or a *.fovea file.
    bundle: PathBuf,
    /// Table of labels: CSV with a header line; columns file, label and perhaps group.
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// Folder that the table's files are relative to: JPEG, PNG or DICOM.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Folder of masks: <stem>_mask.png (binary) and <stem>_label.png (instances), beside the sub-path of the file or flat.
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Writes a page for people; without a name <bundle>-eval.html beside the labels. Only an earlier page is replaced.
    #[arg(long, value_name = "FILE")]
    html: Option<Option<PathBuf>>,
    /// Looks at the first cases only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Goes without files of the table that are not there.
    #[arg(long)]
    skip_missing: bool,
    /// A further key file whose bundles are trusted, beside the release's own.
    #[arg(long, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// Folder of the OpenVINO runtime.
    #[arg(long, env = "FOVEA_OPENVINO_DIR")]
    runtime_dir: Option<PathBuf>,
}

const DEFINITIONS: &str = "\
Labels: 0 or 1 (no/yes, false/true, negative/positive); levels where any label of a grading bundle is above 1 (positive from level 2 on);
classes by their value where the bundle has classes. An empty label counts for masks only. With --masks, labels of which none means anything to the bundle (counts, another scale) are put aside.
Files of the same bytes are one case. A mask may be smaller or larger than its picture, but not of another shape.
In <stem>, only .jpg .jpeg .png .dcm .dicom .tif .tiff are cut off. An instance is a grey value, an index of a palette, or a colour.

n is the number of all cases, answered or not; n_answered of those with an answer.

Figures, over the answered and labelled cases:
  auc            area under the ROC curve, positive against the rest; equal probabilities count half
  auc_low/high   95 % interval: 2,000 draws of whole groups, seeded, 2.5 and 97.5 % quantiles
  sensitivity, specificity   at clear_below: everything that is not clear counts as positive; in text also at significant_from
  ece            mean |probability - share of positives| over 10 bins of equal count, by rising probability
  accuracy       most probable class is the label; for yes or no, and for levels: positive from 0.5 on
  kappa          quadratic weights, level against level; null where labels are 0 and 1 or classes
Over the cases with masks, unanswered ones as if nothing had been found, and without those that are read field by field (under
a bundle with tiles slides, pictures wider than a tile by the scale they state, and those of more than 1,024 pixels), of which there is no map:
  dice, iou      means of 2|A and B| / (|A| + |B|) and |A and B| / |A or B|; 1 where both are empty
  ap50           mean of TP / (TP + FP + FN), partners overlap by more than one half (Data Science Bowl 2018)
  count_error    median of |found - true| / true
Over all cases: ungradable_rate, not_analysed_rate. latency_ms_p50: decode, preparation and inference, median of the answered cases.";

/// Runs it; Ctrl-C ends it after the case in hand.
///
/// # Errors
/// When bundle, table, masks or worker cannot be used.
pub async fn run(args: EvalArgs, json: bool) -> anyhow::Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    // The worker is tied to the thread that started it, so all of it is one blocking task.
    let mut work = tokio::task::spawn_blocking(move || evaluate(&args, json, &seen));
    loop {
        tokio::select! {
            done = &mut work => return done.context("the evaluation ended in a panic")?,
            pressed = tokio::signal::ctrl_c() => {
                pressed.context("listen for Ctrl-C")?;
                stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn evaluate(args: &EvalArgs, json: bool, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let config = look::config(&args.bundle, &args.trust, args.runtime_dir.as_deref())?;
    let files = BundleFiles::open(&args.bundle)?;
    let manifest = Bundle::read_manifest(&files, &config.trusted_keys)?;
    let table = File::open(&args.labels).with_context(|| format!("open {}", args.labels.display()))?;
    let in_table = || format!("in {}", args.labels.display());
    let rows = labels::read(table, args.masks.is_none()).with_context(in_table)?;
    let truths = labels::truths(&manifest, &rows, args.masks.is_some()).with_context(in_table)?;
    let folders = Folders { images: &args.images, masks: args.masks.as_deref(), skip_missing: args.skip_missing };
    let gathered = cases::gather(&rows, &truths.of_rows, &truths.meaning, &folders);
    let (mut cases, mut warnings) = gathered.with_context(in_table)?;
    cases.truncate(args.limit.map_or(usize::MAX, |limit| limit as usize));
    if truths.put_aside {
        warnings.push("the labels mean nothing to this bundle and are put aside: only masks are compared".to_owned());
    }
    let ruler = Ruler::new(&manifest, truths.meaning);
    if let Some(path) = &args.masks {
        warnings.extend(cases::with_masks(&cases, path, ruler.outlines, ruler.counts)?);
    }
    for case in &cases {
        truth::check(if ruler.outlines { &case.masks } else { &[] })?;
        truth::check(if ruler.counts { &case.instances } else { &[] })?;
    }
    let page_path = args.html.as_ref().map(|path| html_path(path.as_deref(), args, &manifest));
    let target = page_path.map(Target::new).transpose()?;
    drop(rows);
    let bench = Bench::new(config, &manifest)?;
    warnings.iter().for_each(|warning| eprintln!("foveactl: {warning}"));

    let Some(results) = look_at_all(&bench, &cases, &ruler, json, stop)? else {
        eprintln!("foveactl: stopped; no figures, because those of a part would mislead");
        return Ok(ExitCode::from(EXIT_INTERRUPTED));
    };
    let summary = Summary::of(&results, &ruler, &bench.serving.model);
    report::warnings(&summary).iter().for_each(|warning| eprintln!("foveactl: {warning}"));
    report::print(&summary, &results, &manifest, json)?;
    if let Some(target) = target {
        let page = html::page(
            &html::Page { manifest: &manifest, ruler: &ruler, summary: &summary, results: &results },
            |worst| thumbs::of(&bench, &cases[worst], &ruler),
        );
        eprintln!("foveactl: the page is in {}", target.write(&page)?.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// One result for each case, printed as they come with `json`; none when it was stopped.
fn look_at_all(
    bench: &Bench,
    cases: &[Case],
    ruler: &Ruler,
    json: bool,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Vec<CaseResult>>> {
    let mut progress = Progress::new(cases.len());
    let mut results = Vec::with_capacity(cases.len());
    for case in cases {
        let looked = bench.look(&case.path);
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (result, scaled) = CaseResult::of(case, &looked?, ruler)?;
        if let Some(scaled) = scaled {
            progress.say(&scaled);
        }
        if json {
            crate::table::json_line(&result.line(ruler))?;
        }
        results.push(result);
        progress.next();
    }
    progress.finish();
    Ok(Some(results))
}

/// The page's place: as named, or beside the labels.
fn html_path(asked: Option<&Path>, args: &EvalArgs, manifest: &Manifest) -> PathBuf {
    if let Some(asked) = asked {
        return asked.to_owned();
    }
    let folder = args.labels.parent().unwrap_or(Path::new("."));
    folder.join(format!("{}-{}-eval.html", manifest.id, manifest.version))
}

/// A bar where somebody looks, a line every tenth elsewhere; both on standard error.
enum Progress {
    Bar(indicatif::ProgressBar),
    Lines { all: usize, done: usize },
}

impl Progress {
    fn new(all: usize) -> Self {
        let style = indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} cases  {per_sec}  {eta} left");
        match style {
            Ok(style) if std::io::stderr().is_terminal() => {
                let bar = indicatif::ProgressBar::new(all as u64);
                bar.set_style(style);
                Self::Bar(bar)
            }
            _ => Self::Lines { all, done: 0 },
        }
    }

    fn next(&mut self) {
        match self {
            Self::Bar(bar) => bar.inc(1),
            Self::Lines { all, done } => {
                let tenth = |done: usize| done * 10 / *all;
                *done += 1;
                if tenth(*done) > tenth(*done - 1) {
                    eprintln!("foveactl: {done} of {all} cases");
                }
            }
        }
    }

    fn say(&self, line: &str) {
        match self {
            Self::Bar(bar) => bar.println(line),
            Self::Lines { .. } => eprintln!("foveactl: {line}"),
        }
    }

    fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
