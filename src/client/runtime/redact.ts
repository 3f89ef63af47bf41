/** Keys that are shorter could be ordinary words. */
const MIN_KEY = 6;

/** A text of a provider without the API key: some providers repeat the key in their errors. */
export const redact = (text: string, apiKey: string | undefined): string =>
  apiKey !== undefined && apiKey.length >= MIN_KEY ? text.replaceAll(apiKey, '[API key]') : text;
