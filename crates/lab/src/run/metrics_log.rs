//! `metrics.jsonl`: one JSON object a line, appended while a run goes on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use earthmapper_geo::files::atomic_write;
use serde_json::{Map, Value};

use super::RunError;

/// Appends lines to `metrics.jsonl`.
#[derive(Debug)]
pub(super) struct MetricsLog {
    path: PathBuf,
    file: File,
    last_step: u64,
}

impl MetricsLog {
    /// Opens the log for appending after cutting it back to the lines up to `keep_up_to` (`None`: no line).
    ///
    /// What a killed run logged after its last checkpoint will be logged again, so it must go; so must a line
    /// that the kill left half-written.
    pub(super) fn open(path: &Path, keep_up_to: Option<u64>) -> Result<Self, RunError> {
        let old = match fs::read(path) {
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(RunError::io(path))?,
        };
        let kept = kept_lines(path, &old, keep_up_to);
        if kept != old || !path.exists() {
            atomic_write(path, &kept, true)?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(RunError::io(path))?;
        Ok(Self { path: path.to_owned(), file, last_step: 0 })
    }

    /// Writes one line. Steps may repeat (training and validation numbers of one step) but never go back.
    ///
    /// Numbers that JSON cannot say (NaN, infinity) become `null`.
    pub(super) fn append(
        &mut self,
        step: u64,
        epoch: u64,
        seconds: f64,
        values: &[(&str, f64)],
    ) -> Result<(), RunError> {
        if step < self.last_step {
            return Err(RunError::StepWentBack { path: self.path.clone(), step, last: self.last_step });
        }
        self.last_step = step;
        let mut line = format!("{{\"step\":{step},\"epoch\":{epoch},\"seconds\":{seconds:.3}");
        for &(name, value) in values {
            line.push_str(&format!(",{}:{}", Value::from(name), Value::from(value)));
        }
        line.push_str("}\n");
        // One write for the whole line, straight to the file: a reader sees whole lines and a kill loses
        // none.
        self.file.write_all(line.as_bytes()).map_err(RunError::io(&self.path))
    }
}

fn kept_lines(path: &Path, old: &[u8], keep_up_to: Option<u64>) -> Vec<u8> {
    let mut kept = Vec::with_capacity(old.len());
    let mut unreadable = 0;
    for line in old.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Map<String, Value>>(line)
            .ok()
            .and_then(|line| line.get("step")?.as_u64())
        {
            Some(step) if Some(step) <= keep_up_to => {
                kept.extend_from_slice(line);
                kept.push(b'\n');
            }
            Some(_) => {}
            None => unreadable += 1,
        }
    }
    if unreadable > 0 {
        tracing::warn!("{}: dropped {unreadable} half-written line(s)", path.display());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_cut_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, None).unwrap();
        for step in 1..=4 {
            log.append(step, 0, step as f64, &[("loss", 1.0 / step as f64), ("a \"b\"", f64::NAN)]).unwrap();
        }
        let error = log.append(3, 0, 9.0, &[]).unwrap_err();
        assert!(error.to_string().contains("step 3 after step 4"), "{error}");
        let whole = fs::read_to_string(&path).unwrap();
        assert_eq!(
            whole.lines().next().unwrap(),
            r#"{"step":1,"epoch":0,"seconds":1.000,"loss":1.0,"a \"b\"":null}"#
        );

        // A kill in the middle of a line.
        fs::write(&path, format!("{whole}{{\"step\":5,\"epo")).unwrap();
        let mut log = MetricsLog::open(&path, Some(3)).unwrap();
        log.append(4, 0, 4.0, &[("loss", 0.25), ("a \"b\"", f64::NAN)]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);

        // Complete but for its line end: it is kept, and the next line does not run into it.
        fs::write(&path, whole.trim_end()).unwrap();
        MetricsLog::open(&path, Some(4)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);

        MetricsLog::open(&path, None).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
