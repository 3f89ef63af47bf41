/** The function that sends requests. */
export type Fetch = typeof globalThis.fetch;
