//! `index.html`: every bucket on one page that needs no server and nothing from elsewhere.

use super::releases;
use super::state::{Bug, Fickle, Ran, State};
use super::worker::Word;
use graphsmith::known::Known;
use graphsmith::report::PICTURE;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use time::OffsetDateTime;

const STYLE: &str = "\
body{font:14px/1.4 system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse;margin:1em 0}\
th,td{text-align:left;vertical-align:top;padding:.3em .8em;border-bottom:1px solid #ddd}th{cursor:pointer;background:#f4f4f4}\
td.n{text-align:right}details svg{max-width:40em;height:auto}.bad{color:#a00}.good{color:#070}small{color:#666}";

/// Sorts the table by the column that is clicked on, and the other way round when that is clicked on again.
const SCRIPT: &str = "\
document.querySelectorAll('th').forEach(th=>th.onclick=()=>{\
const body=th.closest('table').tBodies[0],at=th.cellIndex,key=r=>r.cells[at].dataset.key??r.cells[at].textContent;\
const up=th.dataset.up!=='1';th.dataset.up=up?'1':'0';\
[...body.rows].sort((a,b)=>key(a).localeCompare(key(b),undefined,{numeric:true})*(up?1:-1)).forEach(r=>body.append(r))})";

pub fn page(state: &State, known: &Known, folder: &Path) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>graphsmith findings</title>\n<style>{STYLE}</style>\n\
         <h1>Findings</h1>\n<p>{} inputs judged by {}. A click on a heading sorts.</p>\n",
        state.inputs.len(),
        escape(&state.judge.join(", "))
    );
    page += "<table id=\"findings\"><thead><tr><th>met</th><th>backend</th><th>kind</th><th>finding</th><th>culprit</th>\
             <th>operators</th><th>bytes</th><th>first seen</th><th>last seen</th><th>first bad release</th><th>script</th></tr></thead><tbody>\n";
    for bug in &state.bugs() {
        row(&mut page, folder, bug);
    }
    page += "</tbody></table>\n";
    fickle(&mut page, state);
    known_issues(&mut page, state, known);
    defects(&mut page, state);
    let _ = writeln!(page, "<script>{SCRIPT}</script></html>");
    page
}

fn row(page: &mut String, folder: &Path, bug: &Bug) {
    let Bug { found, written, .. } = bug;
    let name = written.map_or("", |written| written.folder.as_str());
    let picture = fs::read_to_string(folder.join(name).join(PICTURE)).unwrap_or_default();
    // The first lines are of an XML file, not of an element.
    let picture = picture.find("<svg").map_or("", |at| &picture[at..]);
    let picture = if picture.is_empty() {
        String::new()
    } else {
        format!("<details><summary>graph</summary>{picture}</details>")
    };
    let context = found.context.as_ref().map_or_else(String::new, |it| format!("<br><small>{}</small>", escape(it)));
    let links = if written.is_some() { links(folder, name) } else { "no report".to_owned() };
    let other = |name: &&str| format!("<br><small>also <a href=\"{0}/README.md\">{0}</a></small>", escape(name));
    let links = links + &bug.others.iter().map(other).collect::<String>();
    let culprit = [found.cause.as_deref(), Some(found.culprit.as_deref().unwrap_or("several operators"))];
    let culprit: Vec<String> = culprit.into_iter().flatten().map(escape).collect();
    let ran = match written.map(|written| &written.ran) {
        Some(Ran::Shows) => "<span class=\"good\">shows it</span>".to_owned(),
        Some(Ran::ShowsNot(how)) => format!("<span class=\"bad\">does not show it: {}</span>", escape(how)),
        Some(Ran::NotRun(reason)) => format!("<small>not run: {}</small>", escape(reason)),
        None => String::new(),
    };
    let _ = writeln!(
        page,
        "<tr><td class=\"n\">{}</td><td>{} {} {}</td><td>{}</td><td><b>{}</b><br><small>{}</small><br>{}{context}<br>{links}{picture}</td>\
         <td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td data-key=\"{}\">{}</td><td data-key=\"{}\">{}</td><td>{}</td><td>{ran}</td></tr>",
        bug.meetings,
        found.backend,
        escape(&found.version),
        found.level,
        found.kind,
        escape(&found.title),
        escape(&found.signature),
        escape(&found.symptom),
        culprit.join("<br>"),
        found.operators,
        bug.bytes,
        bug.first_seen,
        date(bug.first_seen),
        bug.last_seen,
        date(bug.last_seen),
        escape(&written.and_then(|written| releases::summary(&folder.join(&written.folder))).unwrap_or_default()),
    );
}

/// Links to the files of a report.
fn links(folder: &Path, name: &str) -> String {
    let mut files: Vec<String> = fs::read_dir(folder.join(name))
        .into_iter()
        .flatten()
        .filter_map(|file| Some(file.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    files.sort();
    let link = |file: &String| format!("<a href=\"{}/{}\">{}</a>", escape(name), escape(file), escape(file));
    files.iter().map(link).collect::<Vec<_>>().join(" · ")
}

/// What was met and has not shown again.
fn fickle(page: &mut String, state: &State) {
    if state.fickle.is_empty() {
        return;
    }
    *page += "<h2>Not shown again</h2>\n<table><thead><tr><th>backend</th><th>finding</th><th>seen</th><th>then</th></tr></thead><tbody>\n";
    for (signature, Fickle { folder, found, then, .. }) in &state.fickle {
        let _ = writeln!(
            page,
            "<tr><td>{} {} {}</td><td><a href=\"{}/README.md\">{}</a></td><td>{}</td><td>{}</td></tr>",
            found.backend,
            escape(&found.version),
            found.level,
            escape(folder),
            escape(signature),
            escape(&found.symptom),
            escape(then)
        );
    }
    *page += "</tbody></table>\n";
}

fn known_issues(page: &mut String, state: &State, known: &Known) {
    let met = state.known();
    if met.is_empty() {
        return;
    }
    *page += "<h2>Known issues</h2>\n<table><thead><tr><th>met</th><th>issue</th><th>backend</th><th>reason</th></tr></thead><tbody>\n";
    for (issue, _) in known.iter() {
        let Some(count) = met.get(issue.id.as_str()) else { continue };
        let id = escape(&issue.id);
        let id =
            issue.link.as_ref().map_or_else(|| id.clone(), |link| format!("<a href=\"{}\">{id}</a>", escape(link)));
        let (backend, reason) = (escape(&issue.backend), escape(&issue.reason));
        let _ = writeln!(page, "<tr><td class=\"n\">{count}</td><td>{id}</td><td>{backend}</td><td>{reason}</td></tr>");
    }
    *page += "</tbody></table>\n";
}

fn defects(page: &mut String, state: &State) {
    let defects = state.inputs.values().filter_map(|entry| match &entry.word {
        Word::Defect(reason) => Some((entry.file.display().to_string(), reason)),
        _ => None,
    });
    let rows: String = defects
        .map(|(file, reason)| format!("<tr><td>{}</td><td>{}</td></tr>\n", escape(&file), escape(reason)))
        .collect();
    if !rows.is_empty() {
        let _ = write!(
            page,
            "<h2>graphsmith is at fault</h2>\n<table><thead><tr><th>input</th><th>why</th></tr></thead><tbody>\n{rows}</tbody></table>\n"
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// `2026-11-24 15:04` in UTC, of seconds since 1970.
fn date(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.map_or_else(String::new, |time| format!("{} {:02}:{:02}", time.date(), time.hour(), time.minute()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_told_in_utc() {
        assert_eq!(date(1_795_532_643), "2026-11-24 15:04");
    }

    #[test]
    fn text_is_no_markup() {
        assert_eq!(escape("Conv <- \"A\" & B"), "Conv &lt;- &quot;A&quot; &amp; B");
    }
}
