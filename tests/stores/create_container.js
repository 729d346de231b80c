// Creates a container of an Azure emulator: node create_container.js ADDRESS CONTAINER

const crypto = require("crypto");

const [address, container] = process.argv.slice(2);
const account = "devstoreaccount1";
const key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": "2021-08-06" };

// https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
const named = Object.entries(headers).map(([name, value]) => `${name}:${value}`);
const resource = `/${account}/${account}/${container}\nrestype:container`;
const toSign = ["PUT", ...Array(11).fill(""), ...named, resource].join("\n");
const signature = crypto.createHmac("sha256", Buffer.from(key, "base64")).update(toSign).digest("base64");

fetch(`${address}/${account}/${container}?restype=container`, {
  method: "PUT",
  headers: { ...headers, authorization: `SharedKey ${account}:${signature}` },
}).then((answer) => process.exit(answer.status === 201 ? 0 : 1));
