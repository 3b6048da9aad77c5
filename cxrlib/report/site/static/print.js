// Paper is light, whatever the screen is.
{
  const root = document.documentElement;
  let before = null;
  const light = () => { before ??= root.dataset.theme; root.dataset.theme = "light"; };
  const back = () => { if (before) root.dataset.theme = before; before = null; };
  addEventListener("beforeprint", light);
  addEventListener("afterprint", back);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? light() : back()));
}
