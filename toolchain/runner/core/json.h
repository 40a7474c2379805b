// As much JSON as the report needs: values are appended in order, commas come by themselves.
#pragma once

#include <concepts>
#include <string>
#include <string_view>

class Json {
 public:
  Json& open(char bracket);   // { or [
  Json& close(char bracket);  // } or ]
  Json& key(std::string_view name);
  Json& value(std::string_view text);  // any bytes: what is not UTF-8 becomes U+FFFD
  Json& value(const char* text) { return value(std::string_view(text)); }
  Json& value(std::integral auto number) { return raw(std::to_string(number)); }
  Json& null() { return raw("null"); }

  // [1, 2, 3]
  template <typename Numbers>
  Json& list(const Numbers& numbers) {
    open('[');
    for (const auto number : numbers) value(number);
    return close(']');
  }

  const std::string& text() const { return text_; }

 private:
  Json& raw(std::string_view token);

  std::string text_;
};
