// The order of search results. Sphinx looks only at the best of the words of a query;
// here, every word that is in the titles of a page makes that page rank higher: more if it
// is in the first of them, and more if few pages have it.
var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  score: ([docname, title, anchor, descr, score, filename, kind]) => {
    if (kind === "title") return score + 30; // the whole query is in it
    if (kind !== "text") return score;
    const { filenames, titleterms } = Search._index;
    const words = (text) => [...Search._parseQuery(text)[1]];
    const query = new URLSearchParams(window.location.search).get("q");
    const file = filenames.indexOf(filename);
    return words(query).reduce((sum, word) => {
      const pages = [].concat(titleterms[word] ?? []);
      if (!pages.includes(file)) return sum;
      const weight = words(title).includes(word) ? 4 : 3;
      return sum + weight * Math.log(1 + filenames.length / pages.length);
    }, 1);
  },
};
