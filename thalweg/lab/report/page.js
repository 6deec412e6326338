// Heads of tables sort them, blocks of code can be copied, files taken along. The page is whole without it.
(() => {
  const valueOf = (row, i) => row.cells[i].dataset.v ?? row.cells[i].textContent.trim();
  const compare = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b)) : a - b);
  const sort = (table, head, i) => {
    const falls = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].sort((a, b) => compare(valueOf(a, i), valueOf(b, i)));
    table.tBodies[0].append(...(falls ? rows.reverse() : rows));
  };
  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      const button = document.createElement("button");
      button.append(...head.childNodes);
      button.title = "sort";
      button.onclick = () => sort(table, head, i);
      head.append(button);
    });
  }
  // browsers cut addresses off at some 2 MB; an object has no such limit
  for (const link of document.querySelectorAll("a[download]")) {
    link.onclick = () => {
      const [head, body] = link.getAttribute("href").split(",");
      if (!body) return;
      const bytes = Uint8Array.from(atob(body), (sign) => sign.charCodeAt(0));
      link.href = URL.createObjectURL(new Blob([bytes], { type: head.slice(5, -7) }));
    };
  }
  const copied = async (pre) => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      return true;
    } catch {
      getSelection().selectAllChildren(pre);
      return document.execCommand("copy");
    }
  };
  for (const code of document.querySelectorAll(".code")) {
    const button = document.createElement("button");
    button.className = "copy";
    button.textContent = "copy";
    button.onclick = async () => {
      button.textContent = (await copied(code.querySelector("pre"))) ? "copied" : "press Ctrl-C";
      setTimeout(() => (button.textContent = "copy"), 1500);
    };
    code.append(button);
  }
})();
