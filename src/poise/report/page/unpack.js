// Compressed parts of this file.

/** The text of a script element that holds gzip data as base64. */
async function unpacked(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** Runs the plot library. The policy of this page allows inline scripts by their hashes, and this one's is among them. */
async function loadLibrary() {
  const script = document.createElement("script");
  script.textContent = await unpacked("library");
  document.head.append(script);
  if (!window.Plotly) throw new Error("the plot library did not run");
  return window.Plotly;
}
