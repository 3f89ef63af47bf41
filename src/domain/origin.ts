/** The origin of a base URL, to which keys are bound. A text that is not a URL is returned unchanged. */
export function originOf(baseUrl: string): string {
  return URL.canParse(baseUrl) ? new URL(baseUrl).origin : baseUrl;
}
