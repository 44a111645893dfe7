for (const holder of document.querySelectorAll("script[data-for]")) {
  const figure = JSON.parse(holder.textContent);
  const layout = Object.assign({font: {family: "system-ui, sans-serif", size: 13},
    margin: {l: 60, r: 20, t: 30, b: 50}, paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)", colorway: ["#8a8f98", "#2563eb", "#d97706", "#059669",
    "#be185d", "#7c3aed", "#0e7490", "#92400e"], hovermode: "closest", bargap: 0.45,
    modebar: {bgcolor: "rgba(0,0,0,0)", color: "#b8bec6", activecolor: "#1b1f24"}}, figure.layout);
  Plotly.newPlot(holder.dataset.for, figure.data, layout, {displaylogo: false, responsive: true});
}
