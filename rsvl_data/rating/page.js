"use strict";
const data = JSON.parse(document.getElementById("items").textContent);
const axes = ["relevance_detail", "hallucination", "fluency"];
const place = "rsvl-ratings-" + data.page;
const at = (id) => document.getElementById(id);
const state = { item: 0, axis: 0, name: "", ratings: data.items.map(() => [null, null, null]) };

function restore() {
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    if (kept && kept.ratings.length === data.items.length) Object.assign(state, kept);
  } catch {
    at("not-kept").hidden = false;
  }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(state));
  } catch {
    at("not-kept").hidden = false;
  }
}

const isDone = (ratings) => ratings.every((value) => value !== null);
const isBegun = (ratings) => ratings.some((value) => value !== null);

function show() {
  const item = data.items[state.item];
  const given = state.ratings[state.item];
  const done = state.ratings.filter(isDone).length;
  at("picture").src = data.images[item.image];
  at("caption").textContent = item.description; // text, never markup: captions come from anywhere
  at("number").textContent = `Caption ${state.item + 1} of ${data.items.length}`;
  at("done").textContent = `${done} rated`;
  at("bar").value = done;
  document.querySelectorAll(".axis").forEach((row, axis) => {
    row.classList.toggle("current", axis === state.axis);
    row.querySelectorAll("button").forEach((button, index) => button.setAttribute("aria-pressed", String(given[axis] === index + 1)));
  });
  at("back").disabled = state.item === 0;
  at("next").disabled = state.item === data.items.length - 1;
  at("next").classList.toggle("ready", isDone(given));
  at("download").disabled = !state.ratings.some(isBegun);
  at("finished").hidden = done < data.items.length;
}

function go(step) {
  const item = state.item + step;
  if (item < 0 || item >= data.items.length) return;
  state.item = item;
  const blank = state.ratings[item].indexOf(null);
  state.axis = blank < 0 ? 0 : blank;
  update();
  at("top").scrollIntoView();
}

function rate(axis, value) {
  const given = state.ratings[state.item];
  given[axis] = value;
  const blank = given.indexOf(null);
  state.axis = value === null || blank < 0 ? axis : blank;
  update();
}

function update() {
  keep();
  show();
}

const quoted = (text) => '"' + String(text).replaceAll('"', '""') + '"';

function table() {
  const rows = [["image_path", "description", ...axes].join(",")];
  data.items.forEach((item, index) => {
    const given = state.ratings[index];
    if (isBegun(given)) rows.push([quoted(item.image_path), quoted(item.description), ...given.map((value) => value ?? "")].join(","));
  });
  return rows.join("\r\n") + "\r\n";
}

function download() {
  const link = document.createElement("a");
  const name = state.name.replace(/[^\p{L}\p{N}_-]+/gu, "_");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv;charset=utf-8" }));
  link.download = `ratings-${data.page}${name ? "-" + name : ""}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  if (event.key >= "1" && event.key <= "5") rate(state.axis, Number(event.key));
  else if (event.key === "0" || event.key === "Backspace") rate(state.axis, null);
  else if (event.key === "ArrowRight") go(1);
  else if (event.key === "ArrowLeft") go(-1);
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON") go(1);
  else if (event.key === "ArrowDown") { state.axis = (state.axis + 1) % axes.length; update(); }
  else if (event.key === "ArrowUp") { state.axis = (state.axis + axes.length - 1) % axes.length; update(); }
  else return;
  event.preventDefault();
});
document.querySelectorAll(".axis").forEach((row, axis) => {
  row.querySelectorAll("button").forEach((button, index) => {
    button.addEventListener("click", () => rate(axis, state.ratings[state.item][axis] === index + 1 ? null : index + 1));
  });
});
at("back").addEventListener("click", () => go(-1));
at("next").addEventListener("click", () => go(1));
at("download").addEventListener("click", download);
at("name").addEventListener("input", (event) => { state.name = event.target.value; keep(); });
at("again").addEventListener("click", () => {
  if (!confirm("Forget every rating made on this page?")) return;
  Object.assign(state, { item: 0, axis: 0, ratings: data.items.map(() => [null, null, null]) });
  update();
});

restore();
at("name").value = state.name;
show();
