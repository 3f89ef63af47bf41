/** Where a provider's keys are sent; what cannot be read as a URL stands for itself. */
export function originOf(baseUrl: string): string {
  return URL.canParse(baseUrl) ? new URL(baseUrl).origin : baseUrl;
}
