"use strict";
// Theme, charts that are drawn when they come into view, and tables that sort and filter.
(() => {
  const parse = (node) => JSON.parse(node.textContent);
  const config = parse(document.getElementById("config"));

  // Kept for this page alone: a file that was opened from disk shares its storage with all others.
  const themes = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  button.addEventListener("click", () => {
    const root = document.documentElement;
    const next = themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length];
    root.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
  });

  // Parsed when the first chart needs it, so that the page answers before.
  let vegaLoaded = false;
  const loadVega = () => {
    if (vegaLoaded) return;
    const script = document.createElement("script");
    script.textContent = parse(document.getElementById("vega"));
    document.head.append(script);
    vegaLoaded = true;
  };

  // Divide panels into as many columns as there is room for.
  const fit = (spec, width, meta) => {
    if (Array.isArray(spec)) return spec.map((part) => fit(part, width, meta));
    if (spec.vconcat) return { ...spec, vconcat: fit(spec.vconcat, width, meta) };
    if (!(spec.facet && spec.spec) && !spec.concat) return spec;
    const gap = 22;
    const room = width - meta.left;
    const most = Math.max(1, Math.floor((room + gap) / (meta.panel + meta.each + gap)));
    const rows = Math.ceil(meta.panels / Math.min(spec.columns || 1, most));
    const columns = Math.ceil(meta.panels / rows);
    const panel = Math.max(110, Math.floor(room / columns) - meta.each - gap);
    if (spec.concat) {
      return { ...spec, columns, concat: spec.concat.map((part) => ({ ...part, width: panel })) };
    }
    const inner = spec.spec.width === spec.spec.height && spec.spec.width
      ? spec.spec : { ...spec.spec, width: panel };
    return { ...spec, columns, spec: inner };
  };

  // Text of a tooltip, as HTML; what is undefined has a dash.
  const shown = (text) =>
    text === "null" ? "–" : String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");

  const draw = async (plot) => {
    loadVega();
    const spec = parse(plot.parentElement.querySelector("script"));
    plot.dataset.width = plot.clientWidth;
    await window.vegaEmbed(plot, fit(spec, plot.clientWidth, spec.usermeta), {
      actions: false,
      config,
      defaultStyle: false,
      renderer: "svg",
      tooltip: { disableDefaultStyle: true, sanitize: shown },
    });
    plot.dataset.state = "drawn";
  };

  const table = (rows) => {
    const names = [...new Set(rows.flatMap((row) => Object.keys(row)))]
      .filter((name) => !name.startsWith("_"));
    const node = document.createElement("table");
    const head = node.createTHead().insertRow();
    for (const name of names) {
      const th = document.createElement("th");
      th.scope = "col";
      th.textContent = name.replaceAll("_", " ");
      head.append(th);
    }
    const body = node.createTBody();
    for (const row of rows) {
      const tr = body.insertRow();
      for (const name of names) tr.insertCell().textContent = row[name] ?? "–";
    }
    const quote = (x) => (/[",\n]/.test(x) ? `"${String(x).replaceAll('"', '""')}"` : x);
    const lines = [names, ...rows.map((row) => names.map((name) => row[name] ?? ""))];
    return [node, lines.map((line) => line.map(quote).join(",")).join("\n") + "\n"];
  };

  const tell = (details) => {
    if (!details.open || details.childElementCount > 1) return;
    const figure = details.parentElement;
    const title = figure.querySelector("h3").textContent;
    const rows = parse(figure.querySelector("script")).datasets.table.filter((row) => !row._drawn);
    const [node, csv] = table(rows);
    const region = document.createElement("div");
    region.className = "scroll";
    region.tabIndex = 0;
    region.role = "region";
    region.ariaLabel = `Numbers: ${title}`;
    region.append(node);
    const link = document.createElement("a");
    link.textContent = "Save as CSV";
    link.download = `${title}.csv`;
    link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
    details.append(link, region);
  };

  const loadTables = async () => {
    const text = parse(document.getElementById("datatables"));
    const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const { default: DataTable } = await import(url);
    // What is undefined stands last, however the rest is sorted.
    const compare = (sign) => (a, b) =>
      a === "" || b === "" ? (a === "") - (b === "") : sign * (a - b);
    DataTable.ext.type.order["number-asc"] = compare(1);
    DataTable.ext.type.order["number-desc"] = compare(-1);
    DataTable.ext.type.order["number-pre"] = (x) => (x === "" || x === null ? "" : Number(x));
    return DataTable;
  };
  let tables = null;
  const sortable = async (node) => {
    tables ??= loadTables();
    const DataTable = await tables;
    new DataTable(node, {
      autoWidth: false,
      columnDefs: [{ targets: "n", type: "number" }],
      info: true,
      language: {
        info: "_TOTAL_ rows",
        infoEmpty: "no row",
        infoFiltered: "of _MAX_",
        search: "Filter",
        zeroRecords: "No row has all these words.",
      },
      layout: { topStart: "search", topEnd: "info", bottomStart: null, bottomEnd: null },
      order: [],
      paging: false,
    });
  };

  const show = (target) => {
    seen.unobserve(target);
    if (target.dataset.begun) return;
    target.dataset.begun = "yes";
    if (target.tagName === "TABLE") sortable(target);
    else draw(target).then(() => resized.observe(target));
  };
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) show(target);
    },
    { rootMargin: "400px" },
  );
  let waiting = 0;
  const resized = new ResizeObserver((entries) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      for (const { target } of entries) {
        if (Math.abs(target.clientWidth - target.dataset.width) > 8) draw(target);
      }
    }, 150);
  });
  for (const node of document.querySelectorAll(".plot, table.grid")) seen.observe(node);
  // The others when there is nothing else to do: a page is printed whole, seen or not.
  const rest = [...document.querySelectorAll(".plot")];
  const later = window.requestIdleCallback || ((next) => setTimeout(next, 200));
  const drawNext = () => {
    if (!rest.length) return;
    show(rest.shift());
    later(drawNext);
  };
  window.addEventListener("load", () => later(drawNext));
  for (const node of document.querySelectorAll("figure.chart details")) {
    node.addEventListener("toggle", () => tell(node));
  }
  performance.mark("ready");
})();
