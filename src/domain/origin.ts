/** The origin of a base URL, to which keys are bound. A text that is not a URL is returned unchanged. */
export function originOf(baseUrl: string): string {
  try {
    return new URL(baseUrl).origin;
  } catch {
    return baseUrl;
  }
}
