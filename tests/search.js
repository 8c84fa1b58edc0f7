// Prints what the search of the built documentation shows first, for each query:
// node tests/search.js FOLDER QUERY ...
const fs = require("fs");
const vm = require("vm");

const [folder, ...queries] = process.argv.slice(2);
const page = vm.createContext({
  document: { getElementById: () => null },
  location: {},
  URLSearchParams,
  SPHINX_HIGHLIGHT_ENABLED: false,
  _ready: () => {},
  _: (text) => text,
});
page.window = page;
const names = fs.readdirSync(folder + "/_static").filter((name) => /stemmer.js$/.test(name));
const scripts = [...names.sort(), "language_data.js", "searchtools.js"].map((name) => "_static/" + name);
for (const name of [...scripts, "searchindex.js"])
  vm.runInContext(fs.readFileSync(`${folder}/${name}`, "utf8"), page);
const shown = queries.map((query) => {
  page.query = query;
  page.location.search = "?" + new URLSearchParams({ q: query });
  const found = vm.runInContext("Search._performSearch(...Search._parseQuery(query))", page);
  return found.reverse().slice(0, 5).map((each) => [each[0] + each[2], each[4]]);
});
console.log(JSON.stringify(shown));
