// A client of its own: sends the one request that its arguments name, writes how it was answered, and ends.
const [url = '', method = 'GET', headers = '{}', body] = process.argv.slice(2);
const response = await fetch(url, { method, headers: JSON.parse(headers), ...(body === undefined ? {} : { body }) });
process.stdout.write(JSON.stringify({ status: response.status, text: await response.text() }));
