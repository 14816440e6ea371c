"""The texts of the pages that links in mails lead to, by locale."""

from referral.core.entities.users import Locale

TEXTS = {
    Locale.EN: {
        "confirm_title": "Confirm your e-mail address",
        "confirm_explanation": "Enter the password that you chose for the account of {email}.",
        "confirm_label": "Password",
        "confirm_button": "Confirm",
        "wrong_password": "This is not the password of the account.",
        "disown_question": "You did not make this account? Deleting it cannot be undone.",
        "disown_button": "That was not me: delete the account",
        "disowned_title": "The account is deleted",
        "disowned_message": "You will get no more mail about it.",
        "confirmed_title": "Your e-mail address is confirmed",
        "confirmed_message": "You can close this page.",
        "reset_title": "Choose a new password",
        "reset_explanation": "It is for the account of {email}.",
        "reset_label": "New password, at least 8 characters",
        "reset_button": "Set the password",
        "password_set_title": "Your password is set",
        "password_set_message": "You can log in now. All other sessions have ended.",
        "unusable_title": "This link cannot be used",
        "unusable_message": "It was used before, or has expired. If you have confirmed your "
        "address or set your password with it, nothing is left to do. Otherwise ask for a new one.",
        "too_many_requests_title": "Too many requests",
        "too_many_requests_message": "Try again in {seconds} seconds. Your link is still good.",
        "weak_password": "This password is too short, too long, too common, or the first part of "
        "your e-mail address. Choose another.",
        "unavailable_title": "This does not work at the moment",
        "unavailable_message": "Try again in a few seconds. Your link is still good.",
    },
    Locale.RU: {
        "confirm_title": "Подтвердите адрес электронной почты",
        "confirm_explanation": "Введите пароль, который вы выбрали для учётной записи {email}.",
        "confirm_label": "Пароль",
        "confirm_button": "Подтвердить",
        "wrong_password": "Это не пароль этой учётной записи.",
        "disown_question": "Вы не создавали эту учётную запись? Удаление нельзя отменить.",
        "disown_button": "Это не я: удалить учётную запись",
        "disowned_title": "Учётная запись удалена",
        "disowned_message": "Писем о ней больше не будет.",
        "confirmed_title": "Адрес электронной почты подтверждён",
        "confirmed_message": "Эту страницу можно закрыть.",
        "reset_title": "Выберите новый пароль",
        "reset_explanation": "Он нужен для учётной записи {email}.",
        "reset_label": "Новый пароль, не короче 8 символов",
        "reset_button": "Сохранить пароль",
        "password_set_title": "Пароль изменён",
        "password_set_message": "Теперь можно войти. Все остальные сеансы завершены.",
        "unusable_title": "Эта ссылка не действует",
        "unusable_message": "Она уже использована или устарела. Если вы уже подтвердили адрес или "
        "сменили пароль, больше ничего делать не нужно. Иначе запросите новую.",
        "too_many_requests_title": "Слишком много запросов",
        "too_many_requests_message": "Попробуйте ещё раз через {seconds} с. Ссылка ещё действует.",
        "weak_password": "Пароль слишком короткий, длинный, распространённый или совпадает с "
        "началом вашего адреса. Выберите другой.",
        "unavailable_title": "Сейчас это не работает",
        "unavailable_message": "Попробуйте ещё раз через несколько секунд. Ссылка действует.",
    },
}
