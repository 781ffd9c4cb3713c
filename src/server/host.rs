//! The machine, as Linux tells it.

use std::path::Path;

use rustix::fs::statvfs;
use rustix::system::{sysinfo, uname};
use serde_json::{Map, Value, json};

/// What `/proc/stat` counts for each processor, in the order of its columns (proc_stat(5)).
const TIMES: [&str; 10] =
    ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guestNice"];
/// What is told of `/proc/meminfo`, and under which name.
const MEMORY: [(&str, &str); 8] = [
    ("MemTotal", "total"),
    ("MemAvailable", "available"),
    ("MemFree", "free"),
    ("Buffers", "buffers"),
    ("Cached", "cached"),
    ("Mlocked", "mlocked"),
    ("SwapTotal", "swapTotal"),
    ("SwapFree", "swapFree"),
];

/// Name, memory, processors, and the file system of `data_dir`. What the system does not tell is left
/// out.
pub(super) fn look(data_dir: &Path) -> Map<String, Value> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut out = Map::new();
    out.insert("host".into(), host(&read("/proc/loadavg")));
    out.insert("memory".into(), memory(&read("/proc/meminfo")));
    out.insert("cpu".into(), processors(&read("/proc/cpuinfo")));
    let ticks = rustix::param::clock_ticks_per_second();
    out.insert("cpu_times".into(), times(&read("/proc/stat"), ticks));
    out.insert("disk".into(), disk(data_dir));
    out
}

fn host(load: &str) -> Value {
    let name = uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let info = sysinfo();
    let load: Vec<f64> = load.split_whitespace().take(3).filter_map(|n| n.parse().ok()).collect();
    json!({
        "hostname": text(name.nodename()),
        "os": text(name.sysname()).to_lowercase(),
        "kernelVersion": text(name.release()),
        "kernelArch": text(name.machine()),
        "uptime": info.uptime,
        "procs": info.procs,
        "load": load,
    })
}

fn memory(text: &str) -> Value {
    let kibibytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    let told = MEMORY.iter().filter_map(|(name, shown)| {
        Some(((*shown).to_owned(), json!(kibibytes(name)?.saturating_mul(1024))))
    });
    Value::Object(told.collect())
}

fn processors(text: &str) -> Value {
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let mut all: Vec<Map<String, Value>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("processor") {
            let number = value(line).and_then(|number| number.parse::<u64>().ok());
            all.push(Map::from_iter([("cpu".to_owned(), json!(number))]));
        } else if line.starts_with("model name")
            && let Some(last) = all.last_mut()
        {
            last.insert("modelName".into(), json!(value(line)));
        }
    }
    json!(all)
}

fn times(text: &str, ticks_per_second: u64) -> Value {
    let seconds = |ticks: &str| {
        // Counts of ticks stay far below what a float holds exactly.
        ticks.parse::<u64>().ok().map(|ticks| ticks as f64 / ticks_per_second.max(1) as f64)
    };
    let one = |line: &str| {
        let (name, counts) = line.split_once(' ')?;
        let numbered = name.strip_prefix("cpu")?.bytes().next()?.is_ascii_digit();
        let mut times = Map::from_iter([("cpu".to_owned(), json!(name))]);
        for (name, ticks) in TIMES.iter().zip(counts.split_whitespace()) {
            times.insert((*name).to_owned(), json!(seconds(ticks)));
        }
        numbered.then_some(Value::Object(times))
    };
    Value::Array(text.lines().filter_map(one).collect())
}

fn disk(path: &Path) -> Value {
    let Ok(facts) = statvfs(path) else { return json!([]) };
    let bytes = |blocks: u64| blocks.saturating_mul(facts.f_frsize);
    json!([{
        "total": bytes(facts.f_blocks),
        "free": bytes(facts.f_bavail),
        "used": bytes(facts.f_blocks.saturating_sub(facts.f_bfree)),
        "inodesTotal": facts.f_files,
        "inodesFree": facts.f_ffree,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let text = "MemTotal:       16303368 kB\nMemFree:  1 kB\nSwapTotal:  0 kB\nHuge: 4\n";
        assert_eq!(
            memory(text),
            json!({"total": 16_303_368_u64 * 1024, "free": 1024, "swapTotal": 0})
        );
        let text = "processor\t: 0\nvendor_id\t: X\nmodel name\t: A B: C\n\nprocessor\t: 1\n";
        assert_eq!(processors(text), json!([{"cpu": 0, "modelName": "A B: C"}, {"cpu": 1}]));
        let text = "cpu  9 9 9\ncpu0 100 0 50\nintr 5\n";
        assert_eq!(
            times(text, 100),
            json!([{"cpu": "cpu0", "user": 1.0, "nice": 0.0, "system": 0.5}])
        );
    }

    #[test]
    fn this_machine_has_memory_a_name_and_a_disk() {
        let all = look(Path::new("/"));
        assert!(all["memory"]["total"].as_u64().unwrap() > 0, "{all:?}");
        assert!(!all["host"]["hostname"].as_str().unwrap().is_empty());
        assert!(all["disk"][0]["total"].as_u64().unwrap() > 0);
        assert!(!all["cpu_times"].as_array().unwrap().is_empty());
        assert_eq!(look(Path::new("/no/such/place"))["disk"], json!([]));
    }
}
