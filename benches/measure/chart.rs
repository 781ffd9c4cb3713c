//! The chart for the documents: rates by work, as bars on a logarithmic scale, and how they change with
//! the number of connections. Plain SVG, legible on light and on dark pages, with every number written
//! out.

use std::fmt::Write as _;
use std::path::Path;

use super::report::{Report, Row, grouped};
use super::target::Kind;

/// Which number of connections the bars show, if it was measured; else the largest below.
const CONNECTIONS: usize = 32;
const WIDTH: f64 = 860.0;
/// Where bars begin, and where the largest ends; numbers stand behind it.
const LEFT: f64 = 300.0;
const RIGHT: f64 = 780.0;
const BAR: f64 = 13.0;
const GAP: f64 = 10.0;
/// Panels beside each other, and how wide each is.
const COLUMNS: usize = 3;
const PANEL: f64 = 258.0;

const STYLE: &str = "\
.page{fill:#ffffff}text{fill:#1f2328;font:12px system-ui,sans-serif}.small{font-size:10.5px}\
.head{font-size:15px;font-weight:600}.grid{stroke:#d1d9e0}\
.bare{fill:#8c959f;stroke:#8c959f}.sqlite{fill:#0969da;stroke:#0969da}\
.postgres{fill:#1a7f37;stroke:#1a7f37}.peer{fill:#bc4c00;stroke:#bc4c00}\
polyline{fill:none!important;stroke-width:2}\
@media(prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}.grid{stroke:#3d444d}\
.bare{fill:#9198a1;stroke:#9198a1}.sqlite{fill:#4493f8;stroke:#4493f8}\
.postgres{fill:#3fb950;stroke:#3fb950}.peer{fill:#f0883e;stroke:#f0883e}}";

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Bare => "bare",
        Kind::Sqlite => "sqlite",
        Kind::Postgres => "postgres",
        Kind::Peer => "peer",
    }
}

/// Draws the rows of `group`; nothing when there are none.
pub fn write(report: &Report, group: &str, path: &Path) -> bool {
    let rows: Vec<&Row> =
        report.rows.iter().filter(|row| row.group == group && row.value > 0.0).collect();
    let counts = rows.iter().filter_map(|row| row.connections);
    let Some(connections) =
        counts.clone().filter(|count| *count <= CONNECTIONS).max().or(counts.min())
    else {
        return false;
    };
    let mut works: Vec<&str> = Vec::new();
    for row in &rows {
        if !works.contains(&row.work.as_str()) {
            works.push(&row.work);
        }
    }
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|kind| rows.iter().any(|row| row.target == kind.name()))
        .collect();
    let mut body = String::new();
    let mut y = 78.0;
    let shown: Vec<&&Row> =
        rows.iter().filter(|row| row.connections == Some(connections)).collect();
    let scale = Scale::over(shown.iter().map(|row| row.value));
    let bars_end = y + works.len() as f64 * (kinds.len() as f64 * BAR + GAP);
    scale.grid(&mut body, y - 6.0, bars_end);
    for work in &works {
        let middle = y + kinds.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(
            body,
            r#"<text x="{}" y="{middle}" text-anchor="end">{work}</text>"#,
            LEFT - 10.0
        );
        for kind in &kinds {
            let row = shown.iter().find(|row| row.work == *work && row.target == kind.name());
            if let Some(row) = row {
                let end = scale.at(row.value);
                let _ = writeln!(
                    body,
                    r#"<rect class="{}" x="{LEFT}" y="{y}" width="{:.1}" height="{}"/><text class="small" x="{:.1}" y="{}">{}</text>"#,
                    class(*kind),
                    end - LEFT,
                    BAR - 2.0,
                    end + 5.0,
                    y + 9.5,
                    grouped(row.value)
                );
            }
            y += BAR;
        }
        y += GAP;
    }
    y += 30.0;
    panels(&mut body, &rows, &works, &kinds, &mut y);
    let mut head = String::new();
    legend(&mut head, report, &kinds, connections);
    let text = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0}" role="img" aria-label="Rates by work and server"><style>{STYLE}</style><rect class="page" width="{WIDTH}" height="{y:.0}" rx="6"/>
{head}{body}</svg>
"#
    );
    std::fs::write(path, text).unwrap();
    true
}

fn legend(text: &mut String, report: &Report, kinds: &[Kind], connections: usize) {
    let _ = writeln!(
        text,
        r#"<text class="head" x="20" y="28">Operations a second, {connections} connections, logarithmic</text><text class="small" x="20" y="46">{}, {}</text>"#,
        report.day, report.machine
    );
    let mut x = LEFT;
    for kind in kinds {
        let _ = writeln!(
            text,
            r#"<rect class="{}" x="{x}" y="54" width="11" height="11"/><text class="small" x="{}" y="63.5">{}</text>"#,
            class(*kind),
            x + 16.0,
            kind.name()
        );
        x += 34.0 + kind.name().len() as f64 * 6.0;
    }
}

/// One small panel for each work: its rate by the number of connections.
fn panels(text: &mut String, rows: &[&Row], works: &[&str], kinds: &[Kind], y: &mut f64) {
    let mut counts: Vec<usize> = rows.iter().filter_map(|row| row.connections).collect();
    counts.sort_unstable();
    counts.dedup();
    if counts.len() < 2 {
        return;
    }
    let _ =
        writeln!(text, r#"<text class="head" x="20" y="{y}">By the number of connections</text>"#);
    *y += 14.0;
    let (width, height) = (PANEL, 90.0);
    for (index, work) in works.iter().enumerate() {
        let x = 20.0 + (index % COLUMNS) as f64 * (width + 18.0);
        let of_work: Vec<&&Row> = rows.iter().filter(|row| row.work == *work).collect();
        let most = of_work.iter().map(|row| row.value).fold(1.0, f64::max);
        let place = |row: &Row| {
            let at = counts.iter().position(|count| Some(*count) == row.connections).unwrap_or(0);
            let right = width * at as f64 / (counts.len() - 1) as f64;
            (x + right, *y + 22.0 + height * (1.0 - row.value / most))
        };
        let _ = writeln!(
            text,
            r#"<text class="small" x="{x}" y="{}">{work}</text><line class="grid" x1="{x}" x2="{}" y1="{}" y2="{}"/><text class="small" x="{}" y="{}" text-anchor="end">{} /s</text>"#,
            *y + 12.0,
            x + width,
            *y + 22.0 + height,
            *y + 22.0 + height,
            x + width,
            *y + 24.0,
            grouped(most)
        );
        for kind in kinds {
            let points: Vec<String> = of_work
                .iter()
                .filter(|row| row.target == kind.name())
                .map(|row| place(row))
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let _ = writeln!(
                text,
                r#"<polyline class="{}" points="{}"/>"#,
                class(*kind),
                points.join(" ")
            );
        }
        for (at, count) in counts.iter().enumerate() {
            let right = width * at as f64 / (counts.len() - 1) as f64;
            let _ = writeln!(
                text,
                r#"<text class="small" x="{:.1}" y="{}" text-anchor="middle">{count}</text>"#,
                x + right,
                *y + 36.0 + height
            );
        }
        if index % COLUMNS == COLUMNS - 1 || index + 1 == works.len() {
            *y += height + 56.0;
        }
    }
}

/// From rates to places, by their logarithms.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// From the power of ten below the smallest to the largest.
    fn over(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let high = values.fold(1.0, f64::max).log10().max(low + 1.0);
        Self { low, high }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        LEFT + 2.0 + (RIGHT - LEFT - 2.0) * share
    }

    fn grid(&self, text: &mut String, top: f64, bottom: f64) {
        for power in self.low as i32..=self.high as i32 {
            let x = self.at(10f64.powi(power));
            let _ = writeln!(
                text,
                r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{bottom}"/><text class="small" x="{x:.1}" y="{}" text-anchor="middle">{}</text>"#,
                bottom + 10.0,
                grouped(10f64.powi(power)).replace(".0", "")
            );
        }
    }
}
